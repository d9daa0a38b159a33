//! Hugging Face folders: one safetensors file, or an index and its shards.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Component, Path},
};

use safetensors::SafeTensors;

use super::{Entry, Format, MappedFile, Tensors, WeightsError, json};

pub(crate) const SINGLE: &str = "model.safetensors";
pub(crate) const INDEX: &str = "model.safetensors.index.json";

/// Maps the folder's weight files and lists their tensors.
pub(super) fn open(folder: &Path) -> Result<(Vec<MappedFile>, Tensors), WeightsError> {
    let names = if folder.join(SINGLE).is_file() {
        BTreeSet::from([SINGLE.to_owned()])
    } else if folder.join(INDEX).is_file() {
        shard_names(&folder.join(INDEX))?
    } else {
        return Err(WeightsError::NoWeights(folder.to_owned()));
    };
    let mut files = Vec::with_capacity(names.len());
    let mut tensors = BTreeMap::new();
    for name in names {
        let file = MappedFile::open(&folder.join(name))?;
        list_tensors(&file, &files, &mut tensors)?;
        files.push(file);
    }
    Ok((files, tensors))
}

/// The shards of an index, each of them there.
pub(crate) fn shard_names(index: &Path) -> Result<BTreeSet<String>, WeightsError> {
    let names = plain_shard_names(index)?;
    match names.iter().find(|name| !index.with_file_name(name).is_file()) {
        None => Ok(names),
        Some(shard) => Err(WeightsError::ShardMissing { index: index.to_owned(), shard: shard.to_owned() }),
    }
}

/// The shards that an index names, each a plain file name.
pub(crate) fn plain_shard_names(index: &Path) -> Result<BTreeSet<String>, WeightsError> {
    let content = json(index)?;
    let malformed =
        |reason: &str| WeightsError::Malformed { path: index.to_owned(), reason: reason.to_owned() };
    let map = content
        .get("weight_map")
        .and_then(|map| map.as_object())
        .ok_or_else(|| malformed("it has no object 'weight_map'"))?;
    let mut names = BTreeSet::new();
    for shard in map.values() {
        let shard =
            shard.as_str().ok_or_else(|| malformed("a shard's name in 'weight_map' isn't a string"))?;
        if !names.contains(shard) {
            if !is_plain_name(shard) {
                return Err(WeightsError::ShardOutside { index: index.to_owned(), shard: shard.to_owned() });
            }
            names.insert(shard.to_owned());
        }
    }
    if names.is_empty() { Err(malformed("its 'weight_map' names no shard")) } else { Ok(names) }
}

/// One normal component: no separators, no `..`, no drive.
fn is_plain_name(name: &str) -> bool {
    let mut components = Path::new(name).components();
    matches!(components.next(), Some(Component::Normal(only)) if only == name) && components.next().is_none()
}

fn list_tensors(
    file: &MappedFile,
    earlier: &[MappedFile],
    tensors: &mut Tensors,
) -> Result<(), WeightsError> {
    // The crate checks that the tensors tile the data exactly: no gap, no overlap, no overflow.
    let parsed = SafeTensors::deserialize(file.bytes())
        .map_err(|e| WeightsError::Malformed { path: file.path().to_owned(), reason: e.to_string() })?;
    let start = file.bytes().as_ptr().addr();
    for (name, view) in parsed.iter() {
        let offset = view.data().as_ptr().addr() - start;
        let entry = Entry {
            format: Format::from_safetensors(view.dtype()),
            shape: view.shape().to_vec(),
            file: earlier.len(),
            range: offset..offset + view.data().len(),
        };
        if let Some(other) = tensors.insert(name.to_owned(), entry) {
            return Err(WeightsError::Duplicate {
                tensor: name.to_owned(),
                first: earlier[other.file].path().to_owned(),
                second: file.path().to_owned(),
            });
        }
    }
    Ok(())
}
