//! How do responses look in JSON whose choice of content stands before their other fields?

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, MapAccess, Visitor},
    ser::SerializeMap,
};

use super::{
    flow,
    observer::{ExportEvent, GetFlowsResponse, export_event, get_flows_response},
    relay,
};
use crate::wkt::Timestamp;

impl Serialize for GetFlowsResponse {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use get_flows_response::ResponseTypes;
        let mut map = serializer.serialize_map(None)?;
        match &self.response_types {
            Some(ResponseTypes::Flow(value)) => map.serialize_entry("flow", value)?,
            Some(ResponseTypes::NodeStatus(value)) => map.serialize_entry("node_status", value)?,
            Some(ResponseTypes::LostEvents(value)) => map.serialize_entry("lost_events", value)?,
            None => {}
        }
        origin(&mut map, &self.node_name, &self.time)?;
        map.end()
    }
}

impl Serialize for ExportEvent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use export_event::ResponseTypes;
        let mut map = serializer.serialize_map(None)?;
        match &self.response_types {
            Some(ResponseTypes::Flow(value)) => map.serialize_entry("flow", value)?,
            Some(ResponseTypes::NodeStatus(value)) => map.serialize_entry("node_status", value)?,
            Some(ResponseTypes::LostEvents(value)) => map.serialize_entry("lost_events", value)?,
            Some(ResponseTypes::AgentEvent(value)) => map.serialize_entry("agent_event", value)?,
            Some(ResponseTypes::DebugEvent(value)) => map.serialize_entry("debug_event", value)?,
            None => {}
        }
        origin(&mut map, &self.node_name, &self.time)?;
        map.end()
    }
}

fn origin<M: SerializeMap>(map: &mut M, node_name: &str, time: &Option<Timestamp>) -> Result<(), M::Error> {
    if !node_name.is_empty() {
        map.serialize_entry("node_name", node_name)?;
    }
    if let Some(time) = time {
        map.serialize_entry("time", time)?;
    }
    Ok(())
}

/// Everything that either response can carry; unknown keys are skipped so that files of newer tools can be read.
#[derive(Default)]
struct Parts {
    flow: Option<Box<flow::Flow>>,
    node_status: Option<relay::NodeStatusEvent>,
    lost_events: Option<flow::LostEvent>,
    agent_event: Option<flow::AgentEvent>,
    debug_event: Option<flow::DebugEvent>,
    node_name: String,
    time: Option<Timestamp>,
}

struct PartsVisitor;

impl<'de> Visitor<'de> for PartsVisitor {
    type Value = Parts;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with one of flow, node_status, lost_events, agent_event, debug_event")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Parts, A::Error> {
        let mut parts = Parts::default();
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "flow" => parts.flow = map.next_value()?,
                "node_status" | "nodeStatus" => parts.node_status = map.next_value()?,
                "lost_events" | "lostEvents" => parts.lost_events = map.next_value()?,
                "agent_event" | "agentEvent" => parts.agent_event = map.next_value()?,
                "debug_event" | "debugEvent" => parts.debug_event = map.next_value()?,
                "node_name" | "nodeName" => parts.node_name = map.next_value::<Option<String>>()?.unwrap_or_default(),
                "time" => parts.time = map.next_value()?,
                _ => {
                    map.next_value::<de::IgnoredAny>()?;
                }
            }
        }
        Ok(parts)
    }
}

impl<'de> Deserialize<'de> for GetFlowsResponse {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use get_flows_response::ResponseTypes;
        let parts = deserializer.deserialize_map(PartsVisitor)?;
        let response_types = parts
            .flow
            .map(ResponseTypes::Flow)
            .or(parts.node_status.map(ResponseTypes::NodeStatus))
            .or(parts.lost_events.map(ResponseTypes::LostEvents));
        Ok(GetFlowsResponse { response_types, node_name: parts.node_name, time: parts.time })
    }
}

impl<'de> Deserialize<'de> for ExportEvent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use export_event::ResponseTypes;
        let parts = deserializer.deserialize_map(PartsVisitor)?;
        let response_types = parts
            .flow
            .map(ResponseTypes::Flow)
            .or(parts.node_status.map(ResponseTypes::NodeStatus))
            .or(parts.lost_events.map(ResponseTypes::LostEvents))
            .or(parts.agent_event.map(ResponseTypes::AgentEvent))
            .or(parts.debug_event.map(ResponseTypes::DebugEvent));
        Ok(ExportEvent { response_types, node_name: parts.node_name, time: parts.time })
    }
}
