//! Tensors from the zip that `torch.save` writes (`adapter_model.bin`). Nothing in it is executed.

use std::{
    collections::BTreeMap,
    io::{Cursor, Read},
};

use zip::{CompressionMethod, ZipArchive, result::ZipError};

use super::{
    pickle::{self, PickleError, TensorView},
    tensor_file::TensorInfo,
};

/// Most files in the archive.
const MAX_ENTRIES: usize = 4_096;
/// The pickle that describes the tensors, below the archive's one folder.
const PICKLE: &str = "/data.pkl";

/// Why a torch `.bin` file is refused.
#[derive(Debug, thiserror::Error)]
pub enum TorchError {
    /// The format of torch before 1.6.
    #[error(
        "a torch file of the old format (before torch 1.6, or saved with _use_new_zipfile_serialization=False), which is all pickle: load it with torch and save it as adapter_model.safetensors"
    )]
    Legacy,
    /// No zip at all.
    #[error("not a torch file: it starts with {0}; torch.save writes a zip")]
    NotZip(String),
    /// The zip is damaged.
    #[error("the torch zip is damaged or cut short: {0}")]
    Zip(#[from] ZipError),
    /// The zip is whole but none of torch's.
    #[error("the zip is not from torch.save: {0}")]
    Layout(String),
    /// Its pickle is refused.
    #[error("data.pkl: {0}")]
    Pickle(#[from] PickleError),
    /// No tensor of that name.
    #[error("there is no tensor '{0}' in it")]
    Unknown(String),
    /// Not a float type that is read.
    #[error("tensor '{tensor}': expected dtype f32, f16, bf16 or f64, found {found}")]
    Dtype {
        /// The tensor.
        tensor: String,
        /// Its type in the file.
        found: String,
    },
    /// A tensor points outside of its storage, or repeats elements of it.
    #[error(
        "tensor '{tensor}': its shape {shape:?}, stride {stride:?} and offset {offset} do not fit a storage of {storage} elements"
    )]
    View {
        /// The tensor.
        tensor: String,
        /// Its dimensions.
        shape: Vec<usize>,
        /// Its strides.
        stride: Vec<usize>,
        /// Its first element.
        offset: usize,
        /// Elements in the storage.
        storage: usize,
    },
    /// The bytes of a storage are not all there, or too many.
    #[error("tensor '{tensor}': storage '{entry}' should have {expected} bytes, found {found}")]
    Storage {
        /// The tensor.
        tensor: String,
        /// The file in the archive.
        entry: String,
        /// Bytes that its type and length ask for.
        expected: u64,
        /// Bytes in the archive.
        found: u64,
    },
    /// A file in the archive is compressed, which torch never does.
    #[error(
        "'{0}' is compressed, which torch.save never does: save it again with torch, without zipping it anew"
    )]
    Compressed(String),
    /// Reading from the archive failed, most often by a wrong checksum.
    #[error("'{entry}' is damaged: {source}")]
    Read {
        /// The file in the archive.
        entry: String,
        /// What the reader says.
        source: std::io::Error,
    },
}

/// A zip in memory, and its length in bytes.
struct Archive {
    zip: ZipArchive<Cursor<Vec<u8>>>,
    len: u64,
}

/// A checked torch zip in memory.
pub struct TorchBin {
    archive: Archive,
    folder: String,
    views: BTreeMap<String, TensorView>,
    infos: BTreeMap<String, TensorInfo>,
}

impl TorchBin {
    /// Reads the archive's directory and the description of its tensors.
    ///
    /// # Errors
    /// When it is damaged, of the old format, or describes anything but tensors.
    pub fn open(bytes: Vec<u8>) -> Result<Self, TorchError> {
        check_start(&bytes)?;
        let len = bytes.len() as u64;
        let mut archive = Archive { zip: ZipArchive::new(Cursor::new(bytes))?, len };
        let folder = check_layout(&archive.zip)?;
        let pickle = archive.read(&format!("{folder}{PICKLE}"), |size| {
            if size > pickle::MAX_PICKLE_BYTES as u64 { Err(PickleError::TooLong.into()) } else { Ok(()) }
        })?;
        check_byte_order(&mut archive, &folder)?;
        let views = pickle::tensors(&pickle)?;
        let info = |view: &TensorView| TensorInfo { dtype: view.dtype.clone(), shape: view.shape.clone() };
        let infos = views.iter().map(|(name, view)| (name.clone(), info(view))).collect();
        Ok(Self { archive, folder, views, infos })
    }

    /// Every tensor in it by name.
    pub fn infos(&self) -> &BTreeMap<String, TensorInfo> {
        &self.infos
    }

    /// The values of one tensor, row-major whatever its strides.
    ///
    /// # Errors
    /// When there is none of that name, its type is not a float that is read, or its bytes are damaged.
    pub fn read(&mut self, name: &str) -> Result<Vec<f32>, TorchError> {
        let view = self.views.get(name).ok_or_else(|| TorchError::Unknown(name.to_owned()))?;
        let Some(size) = view.dtype.size() else {
            let found = view.dtype.as_str().to_owned();
            return Err(TorchError::Dtype { tensor: name.to_owned(), found });
        };
        let len = checked_len(name, view)?;
        let entry = format!("{}/data/{}", self.folder, view.key);
        let expected = (view.storage_len as u64).saturating_mul(size as u64);
        let bytes = self.archive.read(&entry, |found| {
            let entry = entry.clone();
            let tensor = name.to_owned();
            if found == expected {
                Ok(())
            } else {
                Err(TorchError::Storage { tensor, entry, expected, found })
            }
        })?;
        let mut values = Vec::with_capacity(len);
        for_each_index(view, |at| values.push(view.dtype.decode(&bytes[at * size..(at + 1) * size])));
        Ok(values)
    }
}

impl Archive {
    /// The bytes of one stored file; `check` sees its size before anything is allocated.
    fn read(
        &mut self,
        entry: &str,
        check: impl FnOnce(u64) -> Result<(), TorchError>,
    ) -> Result<Vec<u8>, TorchError> {
        let file = match self.zip.by_name(entry) {
            Ok(file) => file,
            Err(ZipError::FileNotFound) => return Err(TorchError::Layout(format!("it has no '{entry}'"))),
            Err(other) => return Err(other.into()),
        };
        if file.compression() != CompressionMethod::Stored {
            return Err(TorchError::Compressed(entry.to_owned()));
        }
        let size = file.size();
        check(size)?;
        if size > self.len {
            return Err(TorchError::Layout(format!("'{entry}' claims more bytes than the file has")));
        }
        let mut bytes = Vec::with_capacity(size as usize);
        match file.take(size + 1).read_to_end(&mut bytes) {
            Ok(read) if read as u64 == size => Ok(bytes),
            Ok(_) => Err(TorchError::Layout(format!("'{entry}' is shorter or longer than its entry says"))),
            Err(source) => Err(TorchError::Read { entry: entry.to_owned(), source }),
        }
    }
}

fn check_start(bytes: &[u8]) -> Result<(), TorchError> {
    match bytes {
        [b'P', b'K', ..] => Ok(()),
        [0x80, ..] => Err(TorchError::Legacy),
        _ => {
            let start = &bytes[..bytes.len().min(12)];
            Err(TorchError::NotZip(format!("'{}'", start.escape_ascii())))
        }
    }
}

/// The archive's one folder: `<folder>/data.pkl` must be there exactly once.
fn check_layout(archive: &ZipArchive<Cursor<Vec<u8>>>) -> Result<String, TorchError> {
    if archive.len() > MAX_ENTRIES {
        return Err(TorchError::Layout(format!(
            "it has {} files, at most {MAX_ENTRIES} are read",
            archive.len()
        )));
    }
    if archive.has_duplicate_names() {
        return Err(TorchError::Layout("a file name is there twice".into()));
    }
    let mut folders = Vec::new();
    for name in archive.file_names() {
        let name = name?;
        if let Some(folder) = name.strip_suffix(PICKLE) {
            folders.push(folder.to_owned());
        }
    }
    match folders.as_slice() {
        [folder] if !folder.is_empty() && !folder.contains(['/', '\\']) && folder != ".." => {
            Ok(folder.clone())
        }
        [_] => Err(TorchError::Layout("its data.pkl is not in one plain folder".into())),
        [] => Err(TorchError::Layout("it has no data.pkl".into())),
        _ => Err(TorchError::Layout("it has more than one data.pkl".into())),
    }
}

/// torch writes its machine's byte order beside the data since 2.0; only little-endian is read.
fn check_byte_order(archive: &mut Archive, folder: &str) -> Result<(), TorchError> {
    let entry = format!("{folder}/byteorder");
    if archive.zip.index_for_name(&entry).is_none() {
        return Ok(());
    }
    let too_long = || TorchError::Layout("its byteorder is neither 'little' nor 'big'".into());
    let order = archive.read(&entry, |size| if size > 6 { Err(too_long()) } else { Ok(()) })?;
    if order == b"little" {
        return Ok(());
    }
    Err(TorchError::Layout(format!("its byte order is '{}', only 'little' is read", order.escape_ascii())))
}

/// The number of elements of a view that lies within its storage and repeats nothing beyond it.
fn checked_len(tensor: &str, view: &TensorView) -> Result<usize, TorchError> {
    let outside = || TorchError::View {
        tensor: tensor.to_owned(),
        shape: view.shape.clone(),
        stride: view.stride.clone(),
        offset: view.offset,
        storage: view.storage_len,
    };
    if view.shape.contains(&0) {
        return Ok(0);
    }
    let len = view.shape.iter().try_fold(1usize, |n, &dim| n.checked_mul(dim)).ok_or_else(outside)?;
    let last = view
        .shape
        .iter()
        .zip(&view.stride)
        .try_fold(view.offset, |at, (&dim, &stride)| at.checked_add((dim - 1).checked_mul(stride)?));
    match last {
        Some(last) if last < view.storage_len && len <= view.storage_len => Ok(len),
        _ => Err(outside()),
    }
}

/// Calls `visit` with the storage index of every element, in row-major order of the view.
fn for_each_index(view: &TensorView, mut visit: impl FnMut(usize)) {
    if view.shape.contains(&0) {
        return;
    }
    let mut index = vec![0usize; view.shape.len()];
    let mut at = view.offset;
    loop {
        visit(at);
        // Count up like an odometer, the last dimension first.
        let mut dim = view.shape.len();
        loop {
            if dim == 0 {
                return;
            }
            dim -= 1;
            index[dim] += 1;
            at += view.stride[dim];
            if index[dim] < view.shape[dim] {
                break;
            }
            at -= view.stride[dim] * view.shape[dim];
            index[dim] = 0;
        }
    }
}
