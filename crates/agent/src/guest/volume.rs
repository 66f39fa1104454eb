//! How full a volume is.

use std::path::PathBuf;

use nix::sys::statvfs::statvfs;
use osc_agent_protocol::csi::{Unit, VolumeCondition, VolumeStatsResponse, VolumeUsage};

use super::{Result, blocking, failed};

/// Bytes and inodes of the volume mounted at `path`.
///
/// # Errors
/// [`super::GuestError`] when nothing is there.
pub async fn stats(path: PathBuf) -> Result<VolumeStatsResponse> {
    blocking(move || {
        let seen = statvfs(&path).map_err(|errno| failed("measure", &path)(errno.into()))?;
        let block = seen.fragment_size();
        let bytes =
            usage(Unit::BYTES, seen.blocks() * block, seen.blocks_free() * block, seen.blocks_available() * block);
        let inodes = usage(Unit::INODES, seen.files(), seen.files_free(), seen.files_available());
        Ok(VolumeStatsResponse {
            usage: vec![bytes, inodes],
            volume_condition: Some(VolumeCondition::new()).into(),
            ..Default::default()
        })
    })
    .await
}

/// A file system without a limit says the largest number there is, which those who
/// read these figures as signed cannot hold.
fn usage(unit: Unit, total: u64, free: u64, available: u64) -> VolumeUsage {
    let [total, free, available] = [total, free, available].map(|n| if n == u64::MAX { 0 } else { n });
    VolumeUsage { available, total, used: total.saturating_sub(free), unit: unit.into(), ..Default::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bytes_and_inodes_are_told() {
        let seen = stats("/".into()).await.unwrap();
        let units: Vec<_> = seen.usage.iter().map(|u| u.unit.enum_value().unwrap()).collect();
        assert_eq!(units, [Unit::BYTES, Unit::INODES]);
        assert!(seen.usage[0].total > 0 && seen.usage[0].used <= seen.usage[0].total);
        assert!(stats("/nonexistent".into()).await.is_err());
    }

    #[test]
    fn no_limit_is_none() {
        assert_eq!(
            usage(Unit::INODES, u64::MAX, u64::MAX, u64::MAX),
            VolumeUsage { unit: Unit::INODES.into(), ..Default::default() }
        );
    }
}
