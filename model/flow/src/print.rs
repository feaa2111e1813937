//! How does an answer look? Compact lines, dictionaries, tables or JSON, as Hubble prints them.

mod color;
mod escape;
mod event;
pub(crate) mod flow;
mod json;
mod status;
mod tabs;

pub use color::Color;
pub use escape::clean;
pub use flow::TRACE_POINTS;
pub use json::{JsonError, json};
pub use tabs::Tabs;

use crate::{
    proto::{
        observer::{
            GetAgentEventsResponse, GetDebugEventsResponse, GetFlowsResponse, ServerStatusResponse,
            get_flows_response::ResponseTypes,
        },
        relay::NodeState,
    },
    time::TimeFormat,
};

/// Form of the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Output {
    /// One line each.
    #[default]
    Compact,
    /// One key and value in each line.
    Dict,
    /// JSON of the whole answer, one in each line.
    JsonPb,
    /// Aligned columns; comes when all is known.
    Table,
}

/// Settings of a printer.
#[derive(Clone, Debug)]
pub struct Options {
    /// Form of the output.
    pub output: Output,
    /// Colours; never in tables.
    pub color: Color,
    /// Also tell of what is only informative.
    pub debug: bool,
    /// Names instead of addresses.
    pub ip_translation: bool,
    /// Name the node.
    pub node_name: bool,
    /// Name the policies that decided.
    pub policy_names: bool,
    /// Layout of times.
    pub time_format: TimeFormat,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            output: Output::Compact,
            color: Color::Never,
            debug: false,
            ip_translation: true,
            node_name: false,
            policy_names: false,
            time_format: TimeFormat::StampMilli,
        }
    }
}

/// Text for the two streams.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Printed {
    /// For standard output.
    pub out: String,
    /// For standard error.
    pub err: String,
}

impl Printed {
    fn out(out: String) -> Self {
        Self { out, err: String::new() }
    }

    fn err(err: String) -> Self {
        Self { out: String::new(), err }
    }
}

/// Turns answers into text.
#[derive(Debug)]
pub struct Printer {
    options: Options,
    /// How many answers were printed.
    lines: usize,
    tabs: Tabs,
}

const SEPARATOR: &str = "------------\n";

impl Printer {
    /// A printer that has printed nothing.
    pub fn new(mut options: Options) -> Self {
        if options.output == Output::Table {
            options.color = Color::Never;
        }
        Self { options, lines: 0, tabs: Tabs::default() }
    }

    /// Text of an answer about flows.
    pub fn flows(&mut self, response: &GetFlowsResponse) -> Result<Printed, JsonError> {
        match &response.response_types {
            None => Ok(Printed::default()),
            Some(ResponseTypes::NodeStatus(status)) => self.node_status(response, status),
            Some(ResponseTypes::Flow(_) | ResponseTypes::LostEvents(_)) if self.options.output == Output::JsonPb => {
                Ok(Printed::out(json(response)?))
            }
            Some(ResponseTypes::Flow(flow)) => {
                let fields = flow::fields(&self.options, flow);
                Ok(self.row(&fields))
            }
            Some(ResponseTypes::LostEvents(lost)) => {
                let fields = event::lost(&self.options, response, lost);
                Ok(self.row(&fields))
            }
        }
    }

    /// Text of an answer about the agent.
    pub fn agent_event(&mut self, response: &GetAgentEventsResponse) -> Result<Printed, JsonError> {
        if self.options.output == Output::JsonPb {
            return Ok(Printed::out(json(response)?));
        }
        let fields = event::agent(&self.options, response);
        Ok(self.row(&fields))
    }

    /// Text of an answer for debugging.
    pub fn debug_event(&mut self, response: &GetDebugEventsResponse) -> Result<Printed, JsonError> {
        if self.options.output == Output::JsonPb {
            return Ok(Printed::out(json(response)?));
        }
        let fields = event::debug(&self.options, response);
        Ok(self.row(&fields))
    }

    /// Text of a server's status.
    pub fn status(&mut self, response: &ServerStatusResponse) -> Result<Printed, JsonError> {
        match self.options.output {
            Output::JsonPb => json(response).map(Printed::out),
            Output::Compact => Ok(Printed::out(status::compact(response))),
            Output::Dict => Ok(Printed::out(status::dict(response))),
            Output::Table => {
                status::table(response).iter().for_each(|row| self.tabs.row(row.iter().map(String::as_str)));
                Ok(Printed::default())
            }
        }
    }

    /// The text that had to wait for the last answer.
    pub fn close(&mut self) -> String {
        std::mem::take(&mut self.tabs).align()
    }

    fn row(&mut self, fields: &Fields) -> Printed {
        let first = self.lines == 0;
        self.lines += 1;
        match self.options.output {
            Output::Compact | Output::JsonPb => Printed::out(fields.line.clone()),
            Output::Dict => {
                let separator = if first { "" } else { SEPARATOR };
                let body: String = fields.dict.iter().map(|(key, value)| format!("{key:>11}: {value}\n")).collect();
                Printed::out(format!("{separator}{body}"))
            }
            Output::Table => {
                if first {
                    self.tabs.row(fields.columns.iter().map(|(name, _)| *name));
                }
                self.tabs.row(fields.columns.iter().map(|(_, value)| value.as_str()));
                Printed::default()
            }
        }
    }

    /// Goes to standard error, so that it does not mix with flows that a program reads.
    fn node_status(
        &mut self,
        response: &GetFlowsResponse,
        status: &crate::proto::relay::NodeStatusEvent,
    ) -> Result<Printed, JsonError> {
        let needs_attention = matches!(status.state_change(), NodeState::NodeError | NodeState::NodeUnavailable);
        if !needs_attention && !self.options.debug {
            return Ok(Printed::default());
        }
        Ok(Printed::err(match self.options.output {
            Output::JsonPb => json(response)?,
            Output::Compact | Output::Table => event::node_line(&self.options, response, status),
            Output::Dict => {
                let separator = if self.lines == 0 { "" } else { SEPARATOR };
                self.lines = self.lines.max(1);
                format!("{separator}{}", event::node_dict(&self.options, response, status))
            }
        }))
    }
}

/// One answer in the three textual forms.
struct Fields {
    line: String,
    dict: Vec<(&'static str, String)>,
    columns: Vec<(&'static str, String)>,
}
