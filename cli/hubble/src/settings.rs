//! What holds: a flag, the environment, the configuration file, or the default, in this order.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    time::Duration,
};

use flow::time::{parse_duration, print_duration};
use hubble::client::{Address, Options, Tls};
use serde_json::Value;

use crate::{
    error::Error,
    flags::{Flag, GLOBAL, Kind, SERVER},
    parse::{Line, truth},
};

/// Values of the configuration file.
pub(crate) type File = BTreeMap<String, Value>;

/// Settings of the global and server flags.
#[derive(Debug)]
pub(crate) struct Settings {
    pub path: PathBuf,
    values: BTreeMap<&'static str, Value>,
    file: File,
}

/// The flags that can be configured.
pub(crate) fn keys() -> impl Iterator<Item = &'static Flag> {
    GLOBAL.flags.iter().chain(SERVER.flags)
}

/// The configurable flag of this name.
pub(crate) fn key(name: &str) -> Result<&'static Flag, Error> {
    keys().find(|flag| flag.name == name).ok_or_else(|| {
        let names: Vec<_> = keys().map(|flag| flag.name).collect();
        Error::Usage(format!("unknown key: {name}: want one of {}", names.join(", ")))
    })
}

impl Settings {
    /// Reads environment and file.
    pub(crate) fn new(line: &Line) -> Result<Self, Error> {
        let variable = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
        Self::with(line, variable)
    }

    fn with(line: &Line, variable: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let given = line.last("config").map(str::to_owned).or_else(|| variable("HUBBLE_CONFIG"));
        let path = given.map_or_else(|| default_path(&variable), PathBuf::from);
        let file = read(&path)?;
        let mut values = BTreeMap::new();
        for flag in keys() {
            let name = format!("HUBBLE_{}", flag.name.to_uppercase().replace('-', "_"));
            let text = line.last(flag.name).map(|last| match flag.kind {
                Kind::List => line.all(flag.name).join(","),
                _ => last.to_owned(),
            });
            let value = match (text.or_else(|| variable(&name)), file.get(flag.name)) {
                (Some(text), _) => typed(flag, &text)?,
                (None, Some(value)) => of_file(flag, value)?,
                (None, None) => typed(flag, flag.default)?,
            };
            values.insert(flag.name, value);
        }
        values.insert("config", path.to_string_lossy().into_owned().into());
        Ok(Self { path, values, file })
    }

    pub(crate) fn text(&self, name: &str) -> String {
        self.values.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
    }

    pub(crate) fn is_set(&self, name: &str) -> bool {
        self.values.get(name).and_then(Value::as_bool).unwrap_or_default()
    }

    pub(crate) fn duration(&self, name: &str) -> Duration {
        let nanos = parse_duration(&self.text(name)).and_then(|nanos| u64::try_from(nanos).ok());
        Duration::from_nanos(nanos.unwrap_or_default())
    }

    pub(crate) fn list(&self, name: &str) -> Vec<String> {
        strings(self.values.get(name))
    }

    /// A list that only the file knows.
    pub(crate) fn file_list(&self, name: &str) -> Vec<String> {
        strings(self.file.get(name))
    }

    pub(crate) fn value(&self, name: &str) -> Value {
        self.values.get(name).cloned().unwrap_or(Value::Null)
    }

    /// All values, as YAML.
    pub(crate) fn yaml(&self) -> String {
        yaml(self.values.iter().map(|(name, value)| (*name, value)))
    }

    /// Where the server is and how it is spoken to; `forwarded` is the local port that leads to relay, if one does.
    pub(crate) fn server(&self, forwarded: Option<u16>) -> Result<(Address, Options), Error> {
        let address: Address = match forwarded {
            Some(port) => format!("127.0.0.1:{port}").parse()?,
            None => self.text("server").parse()?,
        };
        let with_tls = matches!(address, Address::Tcp { tls: true, .. }) || self.is_set("tls");
        let tls = self.tls()?;
        if tls.identity.is_some() && !with_tls {
            return Err(Error::Usage(
                "invalid flag(s): transport layer security required: a client certificate needs --tls or tls://"
                    .to_owned(),
            ));
        }
        Ok((address, Options { timeout: self.duration("timeout"), tls: with_tls.then_some(tls) }))
    }

    fn tls(&self) -> Result<Tls, Error> {
        let read = |path: String| fs::read(&path).map_err(Error::file(path));
        let identity = match (self.text("tls-client-cert-file"), self.text("tls-client-key-file")) {
            (certificate, key) if certificate.is_empty() && key.is_empty() => None,
            (certificate, key) if !certificate.is_empty() && !key.is_empty() => Some((read(certificate)?, read(key)?)),
            _ => {
                return Err(Error::Usage(
                    "invalid flag(s): --tls-client-cert-file and --tls-client-key-file are both required, but only one was given"
                        .to_owned(),
                ));
            }
        };
        let name = self.text("tls-server-name");
        Ok(Tls {
            authorities: self.list("tls-ca-cert-files").into_iter().map(read).collect::<Result<_, _>>()?,
            identity,
            server_name: (!name.is_empty()).then_some(name),
            insecure: self.is_set("tls-allow-insecure"),
        })
    }
}

fn default_path(variable: &impl Fn(&str) -> Option<String>) -> PathBuf {
    let folder = variable("XDG_CONFIG_HOME").map(PathBuf::from);
    let folder = folder.or_else(|| variable("HOME").map(|home| Path::new(&home).join(".config")));
    folder.unwrap_or_default().join("hubble/config.yaml")
}

/// No file is an empty one.
pub(crate) fn read(path: &Path) -> Result<File, Error> {
    let text = match fs::read_to_string(path) {
        Ok(text) if text.trim().is_empty() => return Ok(File::new()),
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(File::new()),
        Err(error) => return Err(Error::file(path)(error)),
    };
    serde_saphyr::from_str(&text).map_err(|error| Error::Config { path: path.to_owned(), why: error.to_string() })
}

/// Writes the file, for its owner only: it may hold a password.
pub(crate) fn write(path: &Path, file: &File) -> Result<(), Error> {
    use std::{io::Write as _, os::unix::fs::OpenOptionsExt as _};
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(Error::file(folder))?;
    }
    let text = yaml(file.iter().map(|(name, value)| (name.as_str(), value)));
    let mut options = fs::OpenOptions::new();
    let opened = options.write(true).create(true).truncate(true).mode(0o600).open(path);
    opened.and_then(|mut opened| opened.write_all(text.as_bytes())).map_err(Error::file(path))
}

/// A value of a flag's kind.
pub(crate) fn typed(flag: &Flag, text: &str) -> Result<Value, Error> {
    Ok(match flag.kind {
        Kind::Bool => truth(flag.name, text)?.into(),
        Kind::Port => text.parse::<u16>().map_err(|_| Error::value(flag.name, text, "want a port number"))?.into(),
        Kind::Duration => {
            let nanos = parse_duration(text).and_then(|nanos| u64::try_from(nanos).ok());
            let nanos = nanos.ok_or_else(|| Error::value(flag.name, text, "want a duration as 5s or 1m30s"))?;
            print_duration(nanos).into()
        }
        Kind::List => {
            let inner = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
            inner.split(',').map(str::trim).filter(|part| !part.is_empty()).map(Value::from).collect()
        }
        _ => text.into(),
    })
}

fn of_file(flag: &Flag, value: &Value) -> Result<Value, Error> {
    match value {
        Value::Array(_) if flag.kind == Kind::List => Ok(value.clone()),
        Value::String(text) => typed(flag, text),
        Value::Null => typed(flag, flag.default),
        other => typed(flag, &other.to_string()),
    }
}

fn strings(value: Option<&Value>) -> Vec<String> {
    let items = value.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    items.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn yaml<'a>(values: impl Iterator<Item = (&'a str, &'a Value)>) -> String {
    let lines: String = values.map(|(name, value)| format!("{name}:{}", item(value))).collect();
    if lines.is_empty() { "{}\n".to_owned() } else { lines }
}

fn item(value: &Value) -> String {
    match value {
        Value::Array(items) if !items.is_empty() => {
            let lines: String = items.iter().map(|item| format!("    - {}\n", scalar(item))).collect();
            format!("\n{lines}")
        }
        other => format!(" {}\n", scalar(other)),
    }
}

/// Plain where YAML reads it back as the same text, else quoted.
pub(crate) fn scalar(value: &Value) -> String {
    let Value::String(text) = value else { return value.to_string() };
    let words = ["true", "false", "null", "yes", "no", "on", "off", "~"];
    let safe = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '-' | ':');
    let plain = text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '/')
        && text.chars().all(safe)
        && !text.ends_with(':')
        && text.parse::<f64>().is_err()
        && !words.contains(&text.to_lowercase().as_str());
    if plain { text.clone() } else { value.to_string() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::parse::parse;

    fn settings(words: &str, environment: &[(&str, &str)]) -> Result<Settings, Error> {
        let line = parse(&words.split_whitespace().map(str::to_owned).collect::<Vec<_>>())?;
        let found = |name: &str| environment.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
        Settings::with(&line, found)
    }

    #[test]
    fn flags_before_environment_before_file_before_defaults() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.yaml");
        fs::write(&path, "server: file:1\ntimeout: 1m\ntls: true\ntls-ca-cert-files: [a, b]\nallowlist: ['{}']\n")
            .unwrap();
        let config = [("HUBBLE_CONFIG", path.to_str().unwrap())];
        let found = settings("status", &config).unwrap();
        assert_eq!((found.text("server"), found.duration("timeout")), ("file:1".into(), Duration::from_secs(60)));
        assert_eq!(
            (found.list("tls-ca-cert-files"), found.file_list("allowlist")),
            (vec!["a".into(), "b".into()], vec!["{}".into()])
        );
        assert_eq!(found.duration("request-timeout"), Duration::from_secs(12));
        assert!(found.is_set("tls"));

        let environment = [config[0], ("HUBBLE_SERVER", "env:1"), ("HUBBLE_TLS", "false")];
        let found = settings("status", &environment).unwrap();
        assert_eq!((found.text("server"), found.is_set("tls")), ("env:1".into(), false));
        assert_eq!(settings("status --server flag:1", &environment).unwrap().text("server"), "flag:1");
    }

    #[test]
    fn what_is_written_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/config.yaml");
        let file: File = [
            ("basic-auth-password", Value::from("p: #'x\"")),
            ("server", "unix:///var/run/cilium/hubble.sock".into()),
            ("tls", true.into()),
            ("tls-ca-cert-files", vec!["a b", "c"].into()),
            ("tls-server-name", "yes".into()),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
        write(&path, &file).unwrap();
        assert_eq!(read(&path).unwrap(), file);
    }

    #[test]
    fn wrong_settings_are_named() {
        for (words, environment) in [
            ("status", ("HUBBLE_TIMEOUT", "soon")),
            ("status", ("HUBBLE_TLS", "perhaps")),
            ("status --port-forward-port 99999", ("X", "")),
        ] {
            assert!(settings(words, &[environment]).is_err(), "{words} {environment:?}");
        }
        let server = |words: &str| settings(words, &[]).unwrap().server(None).unwrap_err().to_string();
        assert!(server("status --server nope").contains("nope"));
        assert!(server("status --tls-client-cert-file a").contains("only one"));
        assert!(server("status --tls --tls-ca-cert-files /nonexistent/a").contains("/nonexistent/a"));
    }
}
