//! `/healthz`, `/livez` and `/readyz`: one word, or, with `?verbose` or in a failure, a
//! line for each check. `/readyz/<check>` asks one, `?exclude=<check>` leaves one out.

use http::{Response, StatusCode};
use osc_api::status::Status;

use crate::{
    api::Api,
    request::Query,
    response::{self, Body},
};

/// A check: its name, and whether it passes.
type Check = (&'static str, fn(&Api) -> bool);

/// Who lives answers.
const ALIVE: &[Check] = &[("ping", |_| true)];
/// Ready is who can read his store and is not about to stop.
const READY: &[Check] =
    &[("ping", |_| true), ("store", |api| api.store.revision().is_ok()), ("shutdown", |api| !api.stop.is_cancelled())];

/// The answer for `path`, if it is one of these.
pub(crate) fn answer(api: &Api, path: &str, query: &Query) -> Option<Result<Response<Body>, Status>> {
    let (name, one) = path.strip_prefix('/')?.split_once('/').unwrap_or((path.strip_prefix('/')?, ""));
    let checks = match name {
        "healthz" | "livez" => ALIVE,
        "readyz" => READY,
        _ => return None,
    };
    let (checks, verbose): (Vec<&Check>, bool) = if one.is_empty() {
        let excluded: Vec<&str> = query.all("exclude").collect();
        (checks.iter().filter(|(check, _)| !excluded.contains(check)).collect(), query.flag("verbose"))
    } else {
        (checks.iter().filter(|(check, _)| *check == one).collect(), false)
    };
    if checks.is_empty() && !one.is_empty() {
        return Some(Err(Status::unknown_path()));
    }
    let results: Vec<_> = checks.into_iter().map(|(check, passes)| (*check, passes(api))).collect();
    let (code, text) = told(name, &results, verbose);
    Some(Ok(response::text(code, text)))
}

/// Status and text for what the checks said.
fn told(name: &str, results: &[(&str, bool)], verbose: bool) -> (StatusCode, String) {
    let passed = results.iter().all(|(_, passed)| *passed);
    if passed && !verbose {
        return (StatusCode::OK, "ok".into());
    }
    let line = |(check, passed): &(&str, bool)| match passed {
        true => format!("[+]{check} ok\n"),
        false => format!("[-]{check} failed\n"),
    };
    let lines: String = results.iter().map(line).collect();
    let (code, verdict) =
        if passed { (StatusCode::OK, "passed") } else { (StatusCode::INTERNAL_SERVER_ERROR, "failed") };
    (code, format!("{lines}{name} check {verdict}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_and_the_curious_get_all_lines() {
        let (good, bad) = ([("ping", true), ("store", true)], [("ping", true), ("store", false)]);
        for (results, verbose, want) in [
            (good, false, (StatusCode::OK, "ok")),
            (good, true, (StatusCode::OK, "[+]ping ok\n[+]store ok\nreadyz check passed\n")),
            (bad, false, (StatusCode::INTERNAL_SERVER_ERROR, "[+]ping ok\n[-]store failed\nreadyz check failed\n")),
        ] {
            assert_eq!(told("readyz", &results, verbose), (want.0, want.1.to_owned()), "{results:?} {verbose}");
        }
    }
}
