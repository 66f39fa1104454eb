//! Processors.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::failed;
use crate::{
    deadline::Deadline,
    qemu::{
        error::HotplugError,
        machine::{Machine, Running},
        spec::Accelerator,
    },
};

/// One place for a processor.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Place {
    #[serde(rename = "type")]
    driver: String,
    /// Socket, core and thread; handed back as they came.
    props: Map<String, Value>,
    /// Object of the processor that is there.
    qom_path: Option<String>,
}

impl Place {
    fn taken(&self) -> bool {
        self.qom_path.is_some()
    }

    /// Name of the processor if it was added by us.
    fn added(&self) -> Option<&str> {
        self.qom_path.as_deref()?.strip_prefix("/machine/peripheral/")
    }
}

const WHAT: &str = "processors";

impl Machine<Running> {
    /// Adds `count` processors, which the guest must then bring online. Returns
    /// how many there are now.
    ///
    /// # Errors
    /// [`HotplugError`]; those added before the failure stay.
    pub async fn add_cpus(&mut self, count: u32, by: Deadline) -> Result<u32, HotplugError> {
        let places = self.places(by).await?;
        let present = places.iter().filter(|place| place.taken()).count() as u32;
        let mut free: Vec<Place> = places.into_iter().filter(|place| !place.taken()).collect();
        // QEMU lists the highest numbers first; the guest expects the lowest.
        free.reverse();
        let left = free.len() as u32;
        if count > left {
            return Err(HotplugError::Cpus { wanted: count, left });
        }
        for place in free.into_iter().take(count as usize) {
            let mut device = place.props;
            // The name of a removed one may stay taken.
            let id = format!("cpu-{}", self.state.inventory.next_number());
            device.insert("id".into(), id.as_str().into());
            device.insert("driver".into(), place.driver.into());
            self.state.qmp.execute("device_add", Value::Object(device), by).await.map_err(failed("add", &id))?;
        }
        Ok(present + count)
    }

    /// Takes away up to `count` processors that were added, the last first, once
    /// the guest lets go of them. Returns how many there are now. Under software
    /// emulation all stay: QEMU 7.2 crashes when one is added again later.
    ///
    /// # Errors
    /// [`HotplugError::Held`] when the guest keeps one.
    pub async fn remove_cpus(&mut self, count: u32, by: Deadline) -> Result<u32, HotplugError> {
        let places = self.places(by).await?;
        let present = places.iter().filter(|place| place.taken()).count() as u32;
        if self.state.inventory.accelerator != Accelerator::Kvm {
            return Ok(present);
        }
        let added: Vec<&str> = places.iter().filter_map(Place::added).take(count as usize).collect();
        for id in &added {
            self.unplug(id, by).await?;
        }
        Ok(present - added.len() as u32)
    }

    /// All places, the highest first.
    async fn places(&self, by: Deadline) -> Result<Vec<Place>, HotplugError> {
        self.state.qmp.query("query-hotpluggable-cpus", Value::Null, by).await.map_err(failed("count", WHAT))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_tell_who_made_them() {
        let rows = [
            (
                r#"{"props":{"core-id":0,"thread-id":0,"socket-id":1},"vcpus-count":1,"type":"max-x86_64-cpu"}"#,
                false,
                None,
            ),
            (r#"{"props":{},"vcpus-count":1,"qom-path":"/machine/unattached/device[0]","type":"x"}"#, true, None),
            (r#"{"props":{},"vcpus-count":1,"qom-path":"/machine/peripheral/cpu-1","type":"x"}"#, true, Some("cpu-1")),
        ];
        for (json, taken, added) in rows {
            let place: Place = serde_json::from_str(json).unwrap();
            assert_eq!((place.taken(), place.added()), (taken, added), "{json}");
        }
    }
}
