//! Does every case get a result, whatever it holds?

use serde_json::Value;

/// A case as JSON.
pub fn run(data: &[u8]) {
    let Ok(case) = serde_json::from_slice::<Value>(data) else { return };
    let id = case.get("id").cloned();
    let flows = case.get("flows").and_then(Value::as_array).map(Vec::len);
    let result = cli_policy::judge_value(case, None);
    let result: Value = serde_json::from_str(&result).expect("a result is JSON");
    if let Some(Value::String(id)) = id.filter(|id| *id != "") {
        assert_eq!(result["id"], id.as_str(), "the result is that of the case");
    }
    if let (Some(judged), Some(flows)) = (result["flows"].as_array(), flows) {
        assert_eq!(judged.len(), flows, "every flow has a result");
    }
    assert!(result["error"].is_string() || result["flows"].is_array(), "{result}");
}
