//! What was the agent told to do: flags, environment and the folder with one file for each setting?

mod options;
mod proxy;
mod settings;

pub use options::{Kind, Known, known};
pub use settings::{Aggregation, Enforcement, Settings};

use std::collections::BTreeMap;
use std::path::Path;

/// Settings as text, by their names.
pub type Values = BTreeMap<String, String>;

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Nobody knows such a setting.
    #[error("unknown setting {name:?}; the nearest known one is {nearest:?}")]
    Unknown {
        /// As it was given.
        name: String,
        /// What may have been meant.
        nearest: String,
    },
    /// The value makes no sense.
    #[error("setting {name}: {value:?} is not {expected}")]
    Value {
        /// Its name.
        name: String,
        /// As it was given.
        value: String,
        /// What would be right.
        expected: String,
    },
    /// The value makes sense, but the feature does not exist.
    #[error("setting {name}: {value:?} is not supported yet; supported: {supported}")]
    Unsupported {
        /// Its name.
        name: String,
        /// As it was given.
        value: String,
        /// What is there instead.
        supported: String,
    },
    /// An argument that is no setting.
    #[error("{0:?} is no argument: settings look like --name=value")]
    Argument(String),
    /// The folder cannot be read.
    #[error("read settings from {path}: {source}")]
    Read {
        /// The file or folder.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// Everything that was given: the folder of `--config-dir` first, then `CILIUM_NAME` variables, then flags; the last wins.
pub fn gather(arguments: &[String], environment: &Values) -> Result<Values, ConfigError> {
    let flags = parse_flags(arguments)?;
    let mut values = match flags.get("config-dir") {
        Some(folder) => read_folder(Path::new(folder))?,
        None => Values::new(),
    };
    for option in known() {
        let variable = format!("CILIUM_{}", option.name.to_uppercase().replace('-', "_"));
        if let Some(value) = environment.get(&variable) {
            values.insert(option.name.to_owned(), value.clone());
        }
    }
    values.extend(flags);
    Ok(values)
}

/// One file for each setting; hidden files are the ConfigMap volume's own.
fn read_folder(folder: &Path) -> Result<Values, ConfigError> {
    let failed = |path: &Path, source| ConfigError::Read { path: path.display().to_string(), source };
    let mut values = Values::new();
    for entry in std::fs::read_dir(folder).map_err(|e| failed(folder, e))? {
        let path = entry.map_err(|e| failed(folder, e))?.path();
        let Some(name) = path.file_name().and_then(|n| n.to_str()) else { continue };
        if name.starts_with('.') || path.is_dir() {
            continue;
        }
        let text = std::fs::read_to_string(&path).map_err(|e| failed(&path, e))?;
        values.insert(name.to_owned(), text.trim_end_matches('\n').to_owned());
    }
    Ok(values)
}

fn parse_flags(arguments: &[String]) -> Result<Values, ConfigError> {
    let mut values = Values::new();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let Some(flag) = argument.strip_prefix("--") else { return Err(ConfigError::Argument(argument.clone())) };
        let (name, value) = match flag.split_once('=') {
            Some((name, value)) => (name, value.to_owned()),
            None if options::find(flag).is_some_and(|known| known.kind == Kind::Bool) => (flag, "true".to_owned()),
            None if rest.as_slice().first().is_none_or(|next| next.starts_with("--")) => (flag, "true".to_owned()),
            None => (flag, rest.next().cloned().unwrap_or_default()),
        };
        values.insert(name.to_owned(), value);
    }
    Ok(values)
}

/// Settings that were given although their feature does not exist; for a warning each. Unknown names are an error.
pub fn unsupported(values: &Values) -> Result<Vec<String>, ConfigError> {
    let mut warnings = Vec::new();
    for (name, value) in values {
        let Some(known) = options::find(name) else {
            return Err(ConfigError::Unknown { name: name.clone(), nearest: options::nearest(name).to_owned() });
        };
        let used = [settings::USED, proxy::USED].iter().any(|used| used.contains(&name.as_str()));
        if !used && !known.is_off(value) {
            warnings.push(match proxy::reason(name) {
                Some(reason) => format!("setting {name}={value} has no effect: {reason}"),
                None => format!("setting {name}={value} is not supported yet and has no effect"),
            });
        }
    }
    Ok(warnings)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn arguments(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn the_last_source_wins() {
        let folder = std::env::temp_dir().join(format!("agent-config-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("..data")).unwrap();
        for (name, value) in [("cluster-name", "kind-kind\n"), ("enable-ipv6", "false"), ("tunnel-port", "8473")] {
            std::fs::write(folder.join(name), value).unwrap();
        }
        let environment =
            Values::from([("CILIUM_ENABLE_IPV6".into(), "true".into()), ("CILIUM_TUNNEL_PORT".into(), "1".into())]);
        let flags = arguments(&format!("--config-dir={} --tunnel-port 8474 --debug", folder.display()));
        let values = gather(&flags, &environment).unwrap();
        std::fs::remove_dir_all(folder).unwrap();
        assert_eq!(values["cluster-name"], "kind-kind");
        assert_eq!(
            (values["enable-ipv6"].as_str(), values["tunnel-port"].as_str(), values["debug"].as_str()),
            ("true", "8474", "true")
        );
    }

    #[test]
    fn an_unknown_setting_names_the_nearest() {
        let error = unsupported(&Values::from([("enable-polcy".into(), "always".into())])).unwrap_err();
        assert_eq!(error.to_string(), "unknown setting \"enable-polcy\"; the nearest known one is \"enable-policy\"");
    }

    #[test]
    fn a_known_setting_without_its_feature_is_a_warning() {
        let values = Values::from([
            ("enable-wireguard".into(), "true".into()),
            ("enable-bgp-control-plane".into(), "false".into()),
            ("enable-policy".into(), "always".into()),
        ]);
        assert_eq!(
            unsupported(&values).unwrap(),
            ["setting enable-wireguard=true is not supported yet and has no effect"]
        );
    }

    #[test]
    fn wrong_values_say_what_would_be_right() {
        for (name, value, text) in [
            ("enable-policy", "sometimes", "setting enable-policy: \"sometimes\" is not default, always or never"),
            ("tunnel-port", "70000", "setting tunnel-port: \"70000\" is not a port number"),
            ("routing-mode", "native", "setting routing-mode: \"native\" is not supported yet; supported: tunnel"),
            ("enable-ipv4", "maybe", "setting enable-ipv4: \"maybe\" is not true or false"),
        ] {
            let error = Settings::new(&Values::from([(name.into(), value.into())]), "n1").unwrap_err();
            assert_eq!(error.to_string(), text);
        }
    }
}
