//! Which parts make the image: by an OCI index, or by the list that `docker save` writes.

use super::store::{Store, digest};
use super::{At, Result};
use oci_spec::image::{Arch, Descriptor, ImageIndex, ImageManifest, MediaType, Os};
use serde::Deserialize;

/// How deep indices refer to indices.
const DEEPEST: usize = 4;
/// The most layers.
const MOST_LAYERS: usize = 512;

/// What an image is made of.
pub(super) struct Parts {
    /// Its configuration, as it is.
    pub(super) config: Vec<u8>,
    /// The names of its layers, from below.
    pub(super) layers: Vec<String>,
}

/// An entry of manifest.json.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    layers: Vec<String>,
}

/// Finds them.
pub(super) fn find(store: &Store) -> Result<Parts> {
    let parts = if store.has("index.json") { by_index(store)? } else { by_list(store)? };
    if parts.layers.len() > MOST_LAYERS {
        return Err(format!("more than {MOST_LAYERS} layers"));
    }
    Ok(parts)
}

fn by_list(store: &Store) -> Result<Parts> {
    let text = store
        .small("manifest.json")
        .map_err(|_| "neither index.json nor manifest.json is in it".to_owned())?;
    let all: Vec<Saved> = serde_json::from_slice(&text).at("manifest.json")?;
    let one = <[Saved; 1]>::try_from(all).map_err(|all| format!("it holds {} images, not one", all.len()))?;
    let [Saved { config, layers }] = one;
    Ok(Parts { config: store.small(&config)?, layers })
}

fn by_index(store: &Store) -> Result<Parts> {
    let mut index: ImageIndex = serde_json::from_slice(&store.small("index.json")?).at("index.json")?;
    for _ in 0..DEEPEST {
        let chosen = choose(index.manifests())?;
        let text = blob(store, &chosen)?;
        match chosen.media_type() {
            MediaType::ImageIndex => index = serde_json::from_slice(&text).at("an index")?,
            MediaType::Other(kind) if kind.ends_with("manifest.list.v2+json") => {
                index = serde_json::from_slice(&text).at("an index")?;
            }
            _ => {
                let manifest: ImageManifest = serde_json::from_slice(&text).at("its manifest")?;
                let layers = manifest.layers().iter().map(name_of).collect::<Result<_>>()?;
                return Ok(Parts { config: blob(store, manifest.config())?, layers });
            }
        }
    }
    Err("indices refer to indices without end".to_owned())
}

/// The one that runs here.
fn choose(all: &[Descriptor]) -> Result<Descriptor> {
    let arch = if crate::arch::MACHINE == "aarch64" { Arch::ARM64 } else { Arch::Amd64 };
    let fits = |one: &&Descriptor| {
        one.platform().as_ref().is_none_or(|on| *on.os() == Os::Linux && *on.architecture() == arch)
    };
    let mut fitting = all.iter().filter(fits);
    match (fitting.next(), fitting.count()) {
        (Some(one), 0) => Ok(one.clone()),
        (None, _) => Err(format!("none of the {} images in it is for linux on {arch}", all.len())),
        (Some(_), more) => Err(format!("it holds {} images, not one", more + 1)),
    }
}

/// Where a blob is: its digest is made of digits, so nowhere else.
fn name_of(of: &Descriptor) -> Result<String> {
    let digest = of.digest().to_string();
    match digest.split_once(':') {
        Some((kind @ "sha256", hex))
            if hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()) =>
        {
            Ok(format!("blobs/{kind}/{hex}"))
        }
        _ => Err(format!("digest {digest}: only sha256 is known")),
    }
}

/// A small blob, which is what its name says.
fn blob(store: &Store, of: &Descriptor) -> Result<Vec<u8>> {
    let name = name_of(of)?;
    let bytes = store.small(&name)?;
    if name.ends_with(&digest(&bytes)) {
        Ok(bytes)
    } else {
        Err(format!("{name} is not what its digest says"))
    }
}
