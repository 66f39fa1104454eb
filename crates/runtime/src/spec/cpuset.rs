//! Lists of processors as cpusets write them: `0-3,7`.

use std::collections::BTreeSet;

/// More processors than any kernel knows; bounds what a list can expand to.
const MOST_CPUS: u32 = 8192;

/// The processors in `list`; `None` when it is no such list.
pub fn cpus_in(list: &str) -> Option<BTreeSet<u32>> {
    let mut cpus = BTreeSet::new();
    for part in list.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if first > last || last >= MOST_CPUS {
            return None;
        }
        cpus.extend(first..=last);
    }
    Some(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists() {
        for (list, want) in [
            ("", Some(vec![])),
            ("0", Some(vec![0])),
            ("0-2, 7,\n", Some(vec![0, 1, 2, 7])),
            ("2-1", None),
            ("a", None),
            ("0-4294967295", None),
            ("-1", None),
        ] {
            assert_eq!(cpus_in(list).map(|cpus| cpus.into_iter().collect::<Vec<_>>()), want, "{list:?}");
        }
    }
}
