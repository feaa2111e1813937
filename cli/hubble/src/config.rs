//! How is the configuration seen and changed? `config view`, `get`, `set` and `reset`.

use serde_json::Value;

use crate::{
    error::Error,
    settings::{self, Settings, key, scalar, typed},
};

/// The text to print.
pub(crate) fn run(action: &str, arguments: &[String], settings: &Settings) -> Result<String, Error> {
    match (action, arguments) {
        ("view", _) | ("get", []) => Ok(settings.yaml()),
        ("get", [name]) => get(settings, name),
        ("set", [name]) | ("reset", [name]) => set(settings, name, ""),
        ("set", [name, value]) => set(settings, name, value),
        ("reset", []) => {
            settings::write(&settings.path, &settings::File::new())?;
            Ok(String::new())
        }
        ("set", _) => Err(wrong("set requires exactly 1 or 2 argument(s)", arguments)),
        (action, _) => Err(wrong(&format!("{action} requires exactly 0 or 1 argument"), arguments)),
    }
}

fn wrong(what: &str, arguments: &[String]) -> Error {
    Error::Usage(format!("invalid arguments: {what}: got '{}'", arguments.join(" ")))
}

fn get(settings: &Settings, name: &str) -> Result<String, Error> {
    let flag = key(name)?;
    Ok(match settings.value(flag.name) {
        Value::Array(items) if !items.is_empty() => items.iter().map(|item| format!("- {}\n", scalar(item))).collect(),
        value => format!("{}\n", scalar(&value)),
    })
}

/// An empty value is the default, which need not be written.
fn set(settings: &Settings, name: &str, value: &str) -> Result<String, Error> {
    let flag = key(name)?;
    let mut file = settings::read(&settings.path)?;
    if value.is_empty() {
        file.remove(flag.name);
    } else {
        file.insert(flag.name.to_owned(), typed(flag, value)?);
    }
    settings::write(&settings.path, &file)?;
    Ok(String::new())
}
