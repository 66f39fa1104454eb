//! Removes images nobody uses when the disk runs short.
//!
//! What was loaded by hand (`localhost/…`) stays, as no registry has it, and so does
//! what the engine starts every sandbox with.

use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
    time::Duration,
};

use osc_agent_protocol::kind::chain;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::machine::disk;
use crate::cri::{Client, CriError, messages::Image};

/// How often the disk is looked at.
const LOOK: Duration = Duration::from_secs(60);
/// An image that was used that recently may be wanted again at once.
const REST: Duration = Duration::from_secs(120);
/// Less than this part in a hundred free, and less than this many bytes, is short:
/// a part of a large disk that others fill is plenty.
const SHORT: (u64, u64) = (15, 4 << 30);
/// So much is made free then.
const ENOUGH: (u64, u64) = (20, 6 << 30);

/// Looks after the images of one engine until `stop`; `state` is on its disk.
pub(super) async fn run(client: Client, state: PathBuf, stop: CancellationToken) {
    let mut idle = Idle::default();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
        match idle.look(&client, missing(disk(&state))).await {
            Ok(()) => {}
            Err(error) => tracing::debug!(error = chain(&error), "images are not looked after"),
        }
    }
}

/// Bytes to make free on a disk of so many bytes, of which so many are free.
fn missing((all, free): (u64, u64)) -> u64 {
    let bound = |(part, most): (u64, u64)| (all / 100 * part).min(most);
    if free < bound(SHORT) { bound(ENOUGH) - free } else { 0 }
}

/// Since when images have been seen unused.
#[derive(Default)]
struct Idle(HashMap<String, Instant>);

impl Idle {
    async fn look(&mut self, client: &Client, missing: u64) -> Result<(), CriError> {
        let images = client.images().await?;
        let containers = client.containers(HashMap::new()).await?;
        let names = containers.into_iter().flat_map(|c| [c.image_ref, c.image.unwrap_or_default().image]);
        let used: HashSet<String> = names.collect();
        for image in self.surplus(images, &used, missing, Instant::now()) {
            tracing::info!(image.id = image.id, bytes = image.size, "disk is short: removing unused image");
            client.remove_image(&image.id).await?;
        }
        Ok(())
    }

    /// Images to remove, those that have been idle longest first.
    fn surplus(&mut self, images: Vec<Image>, used: &HashSet<String>, missing: u64, now: Instant) -> Vec<Image> {
        let mut idle: Vec<Image> = images.into_iter().filter(|image| !keeps(image, used)).collect();
        let mut since = std::mem::take(&mut self.0);
        self.0.extend(idle.iter().map(|image| (image.id.clone(), since.remove(&image.id).unwrap_or(now))));
        idle.retain(|image| now.duration_since(self.0[&image.id]) >= REST);
        idle.sort_by_key(|image| self.0[&image.id]);
        let mut freed = 0;
        idle.into_iter()
            .take_while(|image| {
                let more = freed < missing;
                freed += image.size;
                more
            })
            .collect()
    }
}

fn keeps(image: &Image, used: &HashSet<String>) -> bool {
    let names = || image.repo_tags.iter().chain(&image.repo_digests).chain([&image.id]);
    image.pinned || names().any(|name| used.contains(name) || name.starts_with("localhost/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(id: &str, tag: &str) -> Image {
        Image { id: id.into(), repo_tags: vec![tag.into()], size: 100, ..Image::default() }
    }

    #[test]
    fn only_what_is_idle_goes_and_no_more_than_needed() {
        let all = || {
            vec![
                image("used", "a:1"),
                image("tagged", "b:1"),
                image("ours", "localhost/c:1"),
                image("new", "d:1"),
                image("x", "e:1"),
                image("y", "f:1"),
            ]
        };
        let used = HashSet::from(["used".to_owned(), "b:1".to_owned()]);
        let mut idle = Idle::default();
        let begun = Instant::now();
        let earlier = all().into_iter().filter(|image| image.id != "new").collect();
        assert!(idle.surplus(earlier, &used, 1000, begun).is_empty(), "nothing is known about them yet");
        let later = begun + REST;
        let ids = |images: Vec<Image>| images.into_iter().map(|image| image.id).collect::<Vec<_>>();
        let mut gone = ids(idle.surplus(all(), &used, 1000, later));
        gone.sort();
        assert_eq!(gone, ["x", "y"]);
        assert_eq!(idle.surplus(all(), &used, 100, later).len(), 1);
        assert!(idle.surplus(all(), &used, 0, later).is_empty());
        let busy = HashSet::from(["x".to_owned(), "y".to_owned(), "new".to_owned()]);
        idle.surplus(all(), &busy, 0, later);
        assert!(idle.surplus(all(), &used, 1000, later).iter().all(|image| image.id != "x"), "used again meanwhile");
    }

    #[test]
    fn a_large_disk_is_short_later_than_a_small_one() {
        const GIB: u64 = 1 << 30;
        for (all, free, want) in [
            (10 * GIB, 2 * GIB, false),
            (10 * GIB, GIB, true),
            (1000 * GIB, 5 * GIB, false),
            (1000 * GIB, 3 * GIB, true),
            (0, 0, false),
        ] {
            assert_eq!(missing((all, free)) > 0, want, "{free} of {all}");
        }
    }
}
