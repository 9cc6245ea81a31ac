use std::path::{Path, PathBuf};

use crate::{FileHashes, MethodConfig, Source, sha256_hex};

/// A kind of trained weights: which files of a folder are read, and so decide what is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightsKind {
    /// A model in Hugging Face layout.
    Model,
    /// What PEFT saved.
    Peft,
    /// An adapter in AdapterHub's layout.
    Adapter,
    /// A head in AdapterHub's layout.
    Head,
    /// A fusion layer in AdapterHub's layout.
    Fusion,
}

impl WeightsKind {
    /// What the weights' file is called; the first that is there is read.
    pub fn weights(self) -> [&'static str; 2] {
        match self {
            Self::Model => ["model.safetensors", "pytorch_model.bin"],
            Self::Peft => ["adapter_model.safetensors", "adapter_model.bin"],
            Self::Adapter => ["adapter.safetensors", "pytorch_adapter.bin"],
            Self::Head => ["model_head.safetensors", "pytorch_model_head.bin"],
            Self::Fusion => {
                ["model_adapter_fusion.safetensors", "pytorch_model_adapter_fusion.bin"]
            }
        }
    }

    /// The files beside the weights that say what they compute.
    fn beside(self) -> &'static [&'static str] {
        match self {
            Self::Model => &["config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt"],
            Self::Peft | Self::Adapter => &["adapter_config.json"],
            Self::Head => &["head_config.json"],
            Self::Fusion => &["adapter_fusion_config.json"],
        }
    }

    /// The kind of a source of a method by its key, such as `method.sources.ko`.
    pub(crate) fn of_source(key: &str) -> Self {
        match key {
            "method.start" => Self::Peft,
            "method.sources.head" => Self::Head,
            // A fusion layer has its adapters' names, joined by commas.
            _ if key.contains(',') => Self::Fusion,
            _ => Self::Adapter,
        }
    }

    /// The files that are read of `path`: of a folder the weights and what is beside them, or the
    /// file itself. None if there are no weights.
    pub fn files(self, path: &Path) -> Option<Vec<PathBuf>> {
        if !path.is_dir() {
            return path.is_file().then(|| vec![path.into()]);
        }
        let there = |name: &&str| path.join(name).is_file();
        let weights = self.weights().into_iter().find(there)?;
        let beside = self.beside().iter().copied().filter(there);
        Some(std::iter::once(weights).chain(beside).map(|name| path.join(name)).collect())
    }

    /// What is at `path`, in one hash: a file's sha256, or for a folder the sha256 of the sha256 of
    /// each of [`Self::files`], as hex digits one after the other. None if there are no weights.
    pub fn sha256(self, path: &Path, hashes: &FileHashes) -> std::io::Result<Option<String>> {
        let Some(files) = self.files(path) else { return Ok(None) };
        let hashes =
            files.iter().map(|file| hashes.sha256(file)).collect::<std::io::Result<Vec<_>>>()?;
        Ok(Some(if path.is_dir() { combined_sha256(&hashes) } else { hashes.concat() }))
    }
}

/// The hash of a folder from those of its files, in the order of [`WeightsKind::files`].
pub fn combined_sha256(hashes: &[String]) -> String {
    sha256_hex(hashes.concat().as_bytes())
}

impl MethodConfig {
    /// The trained weights that the run starts from, by their keys in the configuration.
    pub fn sources_by_key(&self) -> Vec<(String, WeightsKind, &Source)> {
        let sources = match self {
            Self::Vanilla | Self::HeadOnly(_) | Self::Majority | Self::Tfidf(_) => {
                return Vec::new();
            }
            Self::Lora(lora) => {
                let start = lora.start.iter();
                return start
                    .map(|source| ("method.start".to_owned(), WeightsKind::Peft, source))
                    .collect();
            }
            Self::Adapter(adapter) => &adapter.sources,
            Self::AdapterFusion(fusion) => &fusion.sources,
        };
        let keyed = sources.iter().map(|(name, source)| {
            let key = format!("method.sources.{name}");
            let kind = WeightsKind::of_source(&key);
            (key, kind, source)
        });
        keyed.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sha256(kind: WeightsKind, path: &Path) -> Option<String> {
        kind.sha256(path, &FileHashes::default()).unwrap()
    }

    #[test]
    fn every_file_that_is_read_is_in_the_hash_and_no_other() {
        for kind in [
            WeightsKind::Model,
            WeightsKind::Peft,
            WeightsKind::Adapter,
            WeightsKind::Head,
            WeightsKind::Fusion,
        ] {
            let folder = tempfile::tempdir().unwrap();
            let write = |name: &str, text: &str| fs_err::write(folder.path().join(name), text);
            assert_eq!(sha256(kind, folder.path()), None);
            let names: Vec<&str> =
                kind.weights()[..1].iter().chain(kind.beside()).copied().collect();
            for name in &names {
                write(name, name).unwrap();
            }
            let before = sha256(kind, folder.path());
            let hashes: String = names.iter().map(|name| sha256_hex(name.as_bytes())).collect();
            assert_eq!(before, Some(sha256_hex(hashes.as_bytes())));
            write("README.md", "another").unwrap();
            assert_eq!(sha256(kind, folder.path()), before);
            for name in names {
                write(name, "changed").unwrap();
                assert_ne!(sha256(kind, folder.path()), before, "{kind:?}: {name}");
                write(name, name).unwrap();
            }
            assert_eq!(sha256(kind, folder.path()), before);
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        fs_err::write(file.path(), "archive").unwrap();
        let hash = sha256(WeightsKind::Adapter, file.path());
        assert_eq!(hash, Some(sha256_hex(b"archive")));
    }
}
