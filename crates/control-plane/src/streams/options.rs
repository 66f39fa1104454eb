//! What exec, attach, log and port-forward are asked for.

use osc_api::status::Status;
use serde_json::Value;

use crate::request::Query;

/// Query of `pods/log`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Whose output.
    pub container: String,
    /// Go on until the container ends.
    pub follow: bool,
    /// Of the run before this one.
    pub previous: bool,
    /// Only lines of the last so many seconds.
    pub since_seconds: Option<u64>,
    /// Only lines from then on, RFC 3339.
    pub since_time: Option<String>,
    /// Each line begins with its time.
    pub timestamps: bool,
    /// Only the last lines.
    pub tail_lines: Option<u64>,
    /// At most so many bytes.
    pub limit_bytes: Option<u64>,
}

/// Query of `pods/exec` and `pods/attach`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecOptions {
    /// In which container.
    pub container: String,
    /// Program and arguments; empty for attach.
    pub command: Vec<String>,
    /// Input is sent.
    pub stdin: bool,
    /// Output is wanted.
    pub stdout: bool,
    /// Errors are wanted.
    pub stderr: bool,
    /// On a terminal.
    pub tty: bool,
}

/// Options of `pods/log` for this pod.
pub(super) fn log(pod: &Value, query: &Query) -> Result<LogOptions, Status> {
    let since_time = query.get("sinceTime").map(str::to_owned);
    let since_seconds = query.number("sinceSeconds")?;
    if let Some(text) = &since_time
        && osc_api::meta::parse_time(text).is_none()
    {
        return Err(Status::bad_request(format!("sinceTime {text:?} is not an RFC 3339 time")));
    }
    if since_time.is_some() && since_seconds.is_some() {
        return Err(Status::bad_request("at most one of sinceTime or sinceSeconds may be specified"));
    }
    let limit_bytes = query.number("limitBytes")?;
    if limit_bytes == Some(0) {
        return Err(Status::bad_request("limitBytes must be greater than 0"));
    }
    Ok(LogOptions {
        container: container(pod, query)?,
        follow: query.flag("follow"),
        previous: query.flag("previous"),
        since_seconds,
        since_time,
        timestamps: query.flag("timestamps"),
        tail_lines: query.number("tailLines")?,
        limit_bytes,
    })
}

/// Options of `pods/exec` (with a command) and `pods/attach` for this pod.
pub(super) fn exec(pod: &Value, query: &Query, attach: bool) -> Result<ExecOptions, Status> {
    let command: Vec<String> = if attach { Vec::new() } else { query.all("command").map(str::to_owned).collect() };
    if !attach && command.is_empty() {
        return Err(Status::bad_request("you must specify at least 1 command for the container"));
    }
    let tty = query.flag("tty");
    let (stdin, stdout) = (query.flag("stdin"), query.flag("stdout"));
    // A terminal has one output.
    let stderr = query.flag("stderr") && !tty;
    if !(stdin || stdout || stderr) {
        return Err(Status::bad_request("you must specify at least 1 of stdin, stdout, stderr"));
    }
    Ok(ExecOptions { container: container(pod, query)?, command, stdin, stdout, stderr, tty })
}

/// Ports of `pods/portforward`: WebSocket clients name them in front.
pub(super) fn ports(query: &Query) -> Result<Vec<u16>, Status> {
    let texts = query.all("ports").chain(query.all("port")).flat_map(|text| text.split(','));
    texts
        .filter(|text| !text.is_empty())
        .map(|text| match text.trim().parse() {
            Ok(port) if port > 0 => Ok(port),
            _ => Err(Status::bad_request(format!("port {text:?} is not a number from 1 to 65535"))),
        })
        .collect()
}

/// The container meant: the one named, or the only one.
fn container(pod: &Value, query: &Query) -> Result<String, Status> {
    let names = |field: &str| -> Vec<&str> {
        let list = pod["spec"][field].as_array();
        list.into_iter().flatten().filter_map(|container| container["name"].as_str()).collect()
    };
    let pod_name = pod["metadata"]["name"].as_str().unwrap_or_default();
    let (main, init, ephemeral) = (names("containers"), names("initContainers"), names("ephemeralContainers"));
    match query.get("container") {
        Some(name) if main.iter().chain(&init).chain(&ephemeral).any(|known| *known == name) => Ok(name.to_owned()),
        Some(name) => Err(Status::bad_request(format!("container {name} is not valid for pod {pod_name}"))),
        None => match main.as_slice() {
            [only] if init.is_empty() || ephemeral.is_empty() => Ok((*only).to_owned()),
            _ => {
                let mut message = format!(
                    "a container name must be specified for pod {pod_name}, choose one of: [{}]",
                    main.join(" ")
                );
                for (kind, names) in [("init", init), ("ephemeral", ephemeral)] {
                    if !names.is_empty() {
                        message.push_str(&format!(" or one of the {kind} containers: [{}]", names.join(" ")));
                    }
                }
                Err(Status::bad_request(message))
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_container_is_named_or_the_only_one() {
        let one = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a"}], "initContainers": [{"name": "i"}]}});
        let two = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}]}});
        let rows = [
            (&one, "", Ok("a")),
            (&one, "container=i", Ok("i")),
            (&one, "container=x", Err("container x is not valid for pod p")),
            (&two, "container=b", Ok("b")),
            (
                &two,
                "",
                Err(
                    "a container name must be specified for pod p, choose one of: [a b] or one of the init containers: [i]",
                ),
            ),
        ];
        for (pod, query, want) in rows {
            let got = container(pod, &Query::parse(query).unwrap()).map_err(|status| status.message);
            assert_eq!(got, want.map(str::to_owned).map_err(str::to_owned), "{query}");
        }
    }

    #[test]
    fn a_terminal_has_no_separate_errors() {
        let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a"}]}});
        let read = |query: &str| exec(&pod, &Query::parse(query).unwrap(), false);
        let got = read("command=sh&command=-c&command=echo+a%26b&stdout=true&stderr=true&tty=true").unwrap();
        assert_eq!((got.command.join("|").as_str(), got.stdout, got.stderr), ("sh|-c|echo a&b", true, false));
        for wrong in ["stdout=true", "command=sh", "command=sh&stderr=1&tty=1"] {
            assert_eq!(read(wrong).unwrap_err().code, 400, "{wrong}");
        }
    }

    #[test]
    fn ports_come_as_a_list_or_one_by_one() {
        let read = |query: &str| ports(&Query::parse(query).unwrap());
        assert_eq!(read("ports=80,443").unwrap(), [80, 443]);
        assert_eq!(read("port=80&port=443").unwrap(), [80, 443]);
        assert_eq!(read("").unwrap(), [] as [u16; 0]);
        for wrong in ["ports=0", "ports=70000", "port=x"] {
            assert_eq!(read(wrong).unwrap_err().code, 400, "{wrong}");
        }
    }
}
