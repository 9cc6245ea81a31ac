use std::collections::HashMap;
use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use sha2::{Digest, Sha256};

use crate::incoming::incoming;
use crate::split::hex;
use crate::{BertTokenizer, DataError, Review};

/// Part of the cache key: raised when the same key would mean other content.
const CACHE_VERSION: &str = "2";

/// The key of the data's hash in a cache file's header.
const SHA256: &str = "sha256";

/// The tokens of many reviews, laid end to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedReviews {
    input_ids: Vec<u32>,
    ends: Vec<u64>,
    truncated: u64,
}

impl EncodedReviews {
    /// Encodes reviews, each cut to `max_length` tokens.
    pub fn encode(
        reviews: &[Review],
        tokenizer: &BertTokenizer,
        max_length: usize,
    ) -> Result<Self, DataError> {
        let documents: Vec<&str> = reviews.iter().map(|review| review.document.as_str()).collect();
        let encodings = tokenizer.encode(&documents, max_length)?;
        let mut encoded = Self { input_ids: Vec::new(), ends: Vec::new(), truncated: 0 };
        for encoding in encodings {
            encoded.input_ids.extend(&encoding.input_ids);
            encoded.ends.push(encoded.input_ids.len() as u64);
            encoded.truncated += u64::from(encoding.truncated);
        }
        Ok(encoded)
    }

    /// Encodes reviews as [`Self::encode`] does, or reads what was encoded before from the folder
    /// `cache`, by a hash of the documents, the tokenizer and `max_length`.
    ///
    /// A cache file that cannot be used is made anew. Where it cannot be written, the reviews are
    /// encoded all the same.
    pub fn encode_cached(
        reviews: &[Review],
        tokenizer: &BertTokenizer,
        max_length: usize,
        cache: &Path,
    ) -> Result<Self, DataError> {
        let path = cache.join(key(reviews, tokenizer, max_length)).with_extension("safetensors");
        if let Some(encoded) = Self::load(&path, reviews.len()) {
            return Ok(encoded);
        }
        let encoded = Self::encode(reviews, tokenizer, max_length)?;
        // A full or a read-only disk costs the next run the time to encode, and this one nothing.
        if let Err(error) = encoded.store(cache, &path) {
            tracing::warn!("the tokens are not kept for another time: {error}");
        }
        Ok(encoded)
    }

    /// Number of reviews.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are no reviews.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The tokens of one review.
    pub fn tokens(&self, review: usize) -> &[u32] {
        let start = if review == 0 { 0 } else { self.ends[review - 1] };
        &self.input_ids[start as usize..self.ends[review] as usize]
    }

    /// Number of reviews that were cut to `max_length` tokens.
    pub fn truncated(&self) -> usize {
        self.truncated as usize
    }

    fn load(path: &PathBuf, reviews: usize) -> Option<Self> {
        let bytes = fs_err::read(path).ok()?;
        let encoded = Self::parse(&bytes).filter(|encoded| encoded.len() == reviews);
        if encoded.is_none() {
            tracing::warn!("{}: not a usable token cache, encoding again", path.display());
        }
        encoded
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let tensors = SafeTensors::deserialize(bytes).ok()?;
        let data = |name: &str, dtype| {
            tensors.tensor(name).ok().filter(|view| view.dtype() == dtype).map(|view| view.data())
        };
        let (input_ids, ends, truncated) = (
            data("input_ids", Dtype::U32)?,
            data("ends", Dtype::U64)?,
            data("truncated", Dtype::U64)?,
        );
        let (_, header) = SafeTensors::read_metadata(bytes).ok()?;
        let expected = header.metadata().as_ref()?.get(SHA256)?;
        if *expected != digest([input_ids, ends, truncated]) {
            return None;
        }
        let words = |bytes: &[u8]| -> Vec<u64> {
            bytes
                .chunks_exact(8)
                .map(|word| u64::from_le_bytes(word.try_into().expect("chunks of eight")))
                .collect()
        };
        let input_ids: Vec<u32> = input_ids
            .chunks_exact(4)
            .map(|word| u32::from_le_bytes(word.try_into().expect("chunks of four")))
            .collect();
        let ends = words(ends);
        let &[truncated] = words(truncated).as_slice() else {
            return None;
        };
        let ascending = ends.windows(2).all(|pair| pair[0] <= pair[1]);
        let whole = ends.last().is_none_or(|&end| end == input_ids.len() as u64);
        (ascending && whole).then_some(Self { input_ids, ends, truncated })
    }

    fn store(&self, cache: &Path, path: &Path) -> Result<(), DataError> {
        fn view(dtype: Dtype, length: usize, data: &[u8]) -> TensorView<'_> {
            TensorView::new(dtype, vec![length], data).expect("the length fits the data")
        }
        let input_ids: Vec<u8> = self.input_ids.iter().flat_map(|id| id.to_le_bytes()).collect();
        let ends: Vec<u8> = self.ends.iter().flat_map(|end| end.to_le_bytes()).collect();
        let truncated = self.truncated.to_le_bytes();
        let tensors = [
            ("input_ids", view(Dtype::U32, self.input_ids.len(), &input_ids)),
            ("ends", view(Dtype::U64, self.ends.len(), &ends)),
            ("truncated", view(Dtype::U64, 1, &truncated)),
        ];
        let sha256 = digest([&input_ids, &ends, &truncated]);
        let header = HashMap::from([(SHA256.to_owned(), sha256)]);
        let bytes = safetensors::serialize(tensors, Some(header))
            .map_err(|error| DataError::File { path: path.into(), message: error.to_string() })?;
        fs_err::create_dir_all(cache)?;
        // Another process may be writing the same file; each publishes a whole one.
        let mut file = incoming(cache)?;
        std::io::Write::write_all(&mut file, &bytes)?;
        // A crash must not leave the name without the content.
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| DataError::File {
            path: path.into(),
            message: error.error.to_string(),
        })?;
        Ok(())
    }
}

fn digest(data: [&[u8]; 3]) -> String {
    hex(&data.into_iter().fold(Sha256::new(), Sha256::chain_update).finalize())
}

fn key(reviews: &[Review], tokenizer: &BertTokenizer, max_length: usize) -> String {
    let mut hasher = Sha256::new();
    hasher.update(CACHE_VERSION);
    hasher.update(tokenizer.fingerprint());
    hasher.update((max_length as u64).to_le_bytes());
    for review in reviews {
        hasher.update((review.document.len() as u64).to_le_bytes());
        hasher.update(&review.document);
    }
    hex(&hasher.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reviews() -> Vec<Review> {
        ["좋은 영화 영화", "", "나쁜 영화다 정말 나쁜 영화", "영화"]
            .into_iter()
            .enumerate()
            .map(|(id, document)| Review {
                id: id.to_string(),
                document: document.into(),
                label: 0,
            })
            .collect()
    }

    fn tokenizer() -> BertTokenizer {
        let documents: Vec<String> = reviews().into_iter().map(|review| review.document).collect();
        BertTokenizer::train(&documents, 60).unwrap()
    }

    #[test]
    fn the_cache_gives_what_encoding_gives() {
        let (folder, tokenizer, reviews) = (tempfile::tempdir().unwrap(), tokenizer(), reviews());
        let encoded = EncodedReviews::encode(&reviews, &tokenizer, 6).unwrap();
        let cached =
            || EncodedReviews::encode_cached(&reviews, &tokenizer, 6, folder.path()).unwrap();
        assert_eq!((cached(), cached()), (encoded.clone(), encoded.clone()));
        assert_eq!(fs_err::read_dir(folder.path()).unwrap().count(), 1);
        // [CLS] and [SEP] stay on an empty and on a cut review.
        let [cls, sep] = ["[CLS]", "[SEP]"].map(|token| tokenizer.token_to_id(token).unwrap());
        assert_eq!(encoded.tokens(1), [cls, sep]);
        assert_eq!(encoded.tokens(2).len(), 6);
        assert_eq!((encoded.tokens(2)[0], encoded.tokens(2)[5]), (cls, sep));
        assert_eq!(encoded.truncated(), 1);
    }

    #[test]
    fn other_content_has_another_key() {
        let (tokenizer, reviews) = (tokenizer(), reviews());
        let mut other = reviews.clone();
        other[0].document = "좋은 영화영화".into();
        let other_tokenizer = BertTokenizer::train(&["좋은 영화"], 60).unwrap();
        let keys = [
            key(&reviews, &tokenizer, 6),
            key(&reviews, &tokenizer, 7),
            key(&other, &tokenizer, 6),
            key(&reviews[..3], &tokenizer, 6),
            key(&reviews, &other_tokenizer, 6),
        ];
        let different: std::collections::HashSet<_> = keys.iter().collect();
        assert_eq!(different.len(), keys.len());
    }

    #[test]
    fn a_damaged_cache_file_is_made_anew() {
        let (folder, tokenizer, reviews) = (tempfile::tempdir().unwrap(), tokenizer(), reviews());
        let cached =
            || EncodedReviews::encode_cached(&reviews, &tokenizer, 6, folder.path()).unwrap();
        let encoded = cached();
        let path = fs_err::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
        let bytes = fs_err::read(&path).unwrap();
        for damaged in [&bytes[..bytes.len() - 3], &bytes[..5], b""] {
            fs_err::write(&path, damaged).unwrap();
            assert_eq!(cached(), encoded);
            assert_eq!(fs_err::read(&path).unwrap(), bytes);
        }
        for place in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[place] ^= 1;
            assert_eq!(EncodedReviews::parse(&flipped), None, "byte {place}");
        }
        // As earlier versions wrote it.
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        fs_err::write(&path, safetensors::serialize(tensors.iter(), None).unwrap()).unwrap();
        assert_eq!(cached(), encoded);
        assert_eq!(fs_err::read(&path).unwrap(), bytes);
    }
}
