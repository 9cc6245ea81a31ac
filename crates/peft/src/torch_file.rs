use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use burn::tensor::TensorData;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use crate::PeftError;
use crate::library_files::whole;

/// Writes a state dict as `torch.save` does since PyTorch 1.6: a zip archive of one pickle and one
/// entry per tensor. AdapterHub reads no other file unless it is told to.
///
/// All tensors are `f32`. The file appears whole or not at all.
pub(crate) fn write(path: &Path, tensors: &BTreeMap<String, TensorData>) -> Result<(), PeftError> {
    whole(path, |partial| write_in_place(partial, tensors))
}

fn write_in_place(path: &Path, tensors: &BTreeMap<String, TensorData>) -> Result<(), PeftError> {
    let error = |error: zip::result::ZipError| PeftError::Archive {
        path: path.into(),
        message: format!("cannot be written: {error}"),
    };
    let mut pickle = Pickle::start();
    for (key, (name, data)) in tensors.iter().enumerate() {
        pickle.tensor(name, key, data.shape().as_slice());
    }
    let mut archive = ZipWriter::new(fs_err::File::create(path)?);
    let stored = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .with_alignment(64);
    let mut entry = |name: &str, bytes: &[u8]| -> Result<(), PeftError> {
        archive.start_file(format!("archive/{name}"), stored).map_err(error)?;
        Ok(archive.write_all(bytes)?)
    };
    entry("data.pkl", &pickle.finish())?;
    entry("byteorder", b"little")?;
    for (key, data) in tensors.values().enumerate() {
        let bytes: Vec<u8> = data.iter::<f32>().flat_map(f32::to_le_bytes).collect();
        entry(&format!("data/{key}"), &bytes)?;
    }
    entry("version", b"3\n")?;
    archive.finish().map_err(error)?;
    Ok(())
}

/// A pickle (protocol 2) of a dict from names to `torch._utils._rebuild_tensor_v2(...)`.
struct Pickle(Vec<u8>);

impl Pickle {
    fn start() -> Self {
        // PROTO 2, EMPTY_DICT, MARK
        Self(b"\x80\x02}(".to_vec())
    }

    fn finish(mut self) -> Vec<u8> {
        // SETITEMS, STOP
        self.0.extend(b"u.");
        self.0
    }

    fn tensor(&mut self, name: &str, key: usize, shape: &[usize]) {
        let elements: usize = shape.iter().product();
        self.text(name);
        self.0.extend(b"ctorch._utils\n_rebuild_tensor_v2\n(");
        // The storage, by a persistent id: ("storage", FloatStorage, key, "cpu", elements)
        self.0.extend(b"(");
        self.text("storage");
        self.0.extend(b"ctorch\nFloatStorage\n");
        self.text(&key.to_string());
        self.text("cpu");
        self.int(elements);
        self.0.extend(b"tQ");
        // Offset, shape and strides.
        self.int(0);
        self.ints(shape);
        let strides: Vec<usize> =
            (0..shape.len()).map(|axis| shape[axis + 1..].iter().product()).collect();
        self.ints(&strides);
        // requires_grad, and no backward hooks: OrderedDict()
        self.0.extend(b"\x89ccollections\nOrderedDict\n)RtR");
    }

    fn text(&mut self, text: &str) {
        self.0.push(b'X');
        self.0.extend((text.len() as u32).to_le_bytes());
        self.0.extend(text.as_bytes());
    }

    fn int(&mut self, value: usize) {
        self.0.push(b'J');
        let value = i32::try_from(value).expect("a tensor has fewer than 2^31 elements");
        self.0.extend(value.to_le_bytes());
    }

    fn ints(&mut self, values: &[usize]) {
        self.0.push(b'(');
        for &value in values {
            self.int(value);
        }
        self.0.push(b't');
    }
}

#[cfg(test)]
mod tests {
    use nsmc_bert::read_tensors;

    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pytorch_adapter.bin");
        let tensors = BTreeMap::from([
            (
                "a.weight".to_owned(),
                TensorData::new(vec![1.5f32, -2.0, 3.0, 4.0, 5.0, 6.0], [2, 3]),
            ),
            ("b.한글".to_owned(), TensorData::new(vec![f32::MIN_POSITIVE], [1])),
        ]);
        write(&path, &tensors).unwrap();
        let back = read_tensors(&path).unwrap();
        assert_eq!(back.len(), 2);
        for (name, data) in &tensors {
            let read = burn::store::bridge::to_data(&back[name]).unwrap();
            assert_eq!(&read, data);
        }
    }
}
