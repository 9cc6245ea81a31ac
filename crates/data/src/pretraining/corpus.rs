use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::Path;

use flate2::read::GzDecoder;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::CorpusReview;
use crate::incoming::incoming;
use crate::split::hex;
use crate::{DataError, Review};

/// The first line of a corpus file.
pub(super) const HEADER: &str = "id\tdocument\trating\n";

/// The most that is taken out of an archive, far above what NSMC's holds: 14,730 files of at most
/// 39 KB, 168 MB in all.
struct Limits {
    entries: usize,
    entry_bytes: u64,
    unpacked_bytes: u64,
}

const LIMITS: Limits = Limits { entries: 100_000, entry_bytes: 16 << 20, unpacked_bytes: 2 << 30 };

/// What became of the reviews of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CorpusSummary {
    /// JSON files read.
    pub files: usize,
    /// Reviews in them: the sum of the five counts below.
    pub found: usize,
    /// Left out: nothing but white space.
    pub empty: usize,
    /// Left out of the rest: the id is one of the test set.
    pub test_ids: usize,
    /// Left out of the rest: the text is that of a test document.
    pub test_texts: usize,
    /// Left out of the rest: the text was seen before.
    pub repeated: usize,
    /// Reviews written.
    pub reviews: usize,
    /// Unicode scalar values of their texts.
    pub characters: usize,
    /// sha256 of the file written, in lowercase hex.
    pub sha256: String,
}

/// A review as the crawl has it.
#[derive(Deserialize)]
struct RawReview {
    review_id: String,
    review: String,
    rating: String,
}

/// Makes a corpus of the reviews in `raw/*.json` of an archive of NSMC's repository (.tar.gz), and
/// writes it to `out`, whole or not at all.
///
/// The order is that of the files' names, byte by byte, and within a file its own. White space is
/// normalised: runs of it become one space, the ends are trimmed. Left out are empty reviews, those
/// whose id or normalised text stands in `test`, and all but the first of those with the same text.
///
/// Entries that are no regular files and files that are not JSON are passed over. Nothing is
/// unpacked to disk.
pub fn build_corpus(
    archive: &Path,
    test: &[Review],
    out: &Path,
) -> Result<CorpusSummary, DataError> {
    let files = read_archive(archive, &LIMITS)?;
    let test_ids: HashSet<&str> = test.iter().map(|review| review.id.as_str()).collect();
    let test_texts: HashSet<String> =
        test.iter().map(|review| normalize(&review.document)).collect();
    let mut seen: HashSet<&str> = HashSet::new();
    let mut summary = CorpusSummary {
        files: files.len(),
        found: 0,
        empty: 0,
        test_ids: 0,
        test_texts: 0,
        repeated: 0,
        reviews: 0,
        characters: 0,
        sha256: String::new(),
    };
    let mut writer = CorpusWriter::new(out)?;
    let mut written: HashMap<&str, &str> = HashMap::new();
    let in_file = |(file, reviews)| std::iter::repeat(file).zip::<&Vec<CorpusReview>>(reviews);
    for (file, review) in files.iter().flat_map(in_file) {
        summary.found += 1;
        if review.document.is_empty() {
            summary.empty += 1;
        } else if test_ids.contains(review.id.as_str()) {
            summary.test_ids += 1;
        } else if test_texts.contains(&review.document) {
            summary.test_texts += 1;
        } else if !seen.insert(&review.document) {
            summary.repeated += 1;
        } else {
            if let Some(first) = written.insert(&review.id, file) {
                return Err(DataError::Entry {
                    archive: archive.into(),
                    entry: file.clone(),
                    message: format!(
                        "the review id {} stands in {first} already, with another text",
                        review.id
                    ),
                });
            }
            summary.reviews += 1;
            summary.characters += review.document.chars().count();
            writer.write(&format!("{}\t{}\t{}\n", review.id, review.document, review.rating))?;
        }
    }
    summary.sha256 = writer.publish(out)?;
    Ok(summary)
}

/// Runs of Unicode White_Space become one space, none stays at the ends.
pub(super) fn normalize(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The reviews of each JSON file, by the file's name; texts are normalised.
fn read_archive(
    path: &Path,
    limits: &Limits,
) -> Result<BTreeMap<String, Vec<CorpusReview>>, DataError> {
    let broken = |message: String| DataError::File { path: path.into(), message };
    let unpacked = Limited {
        reader: GzDecoder::new(BufReader::new(fs_err::File::open(path)?)),
        left: limits.unpacked_bytes,
        limit: limits.unpacked_bytes,
    };
    let mut archive = tar::Archive::new(unpacked);
    let mut files = BTreeMap::new();
    let mut last = String::new();
    let entries = archive.entries().map_err(|error| broken(error.to_string()))?;
    for (index, entry) in entries.enumerate() {
        let mut entry = entry.map_err(|error| {
            broken(if last.is_empty() {
                error.to_string()
            } else {
                format!("after {last}: {error}")
            })
        })?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let refuse = |message: String| DataError::Entry {
            archive: path.into(),
            entry: name.clone(),
            message,
        };
        if index == limits.entries {
            return Err(refuse(format!("expected an archive of at most {index} entries")));
        }
        // Only what is read is measured: the repository also holds the whole data set in one file.
        if let Some(file) = raw_json(&name).filter(|_| entry.header().entry_type().is_file()) {
            if entry.size() > limits.entry_bytes {
                let limit = limits.entry_bytes;
                let found = entry.size();
                return Err(refuse(format!("expected at most {limit} bytes, found {found}")));
            }
            let mut bytes = Vec::with_capacity(entry.size() as usize);
            entry.read_to_end(&mut bytes).map_err(|error| refuse(error.to_string()))?;
            let reviews = parse(&bytes).map_err(refuse)?;
            if files.insert(file.to_owned(), reviews).is_some() {
                return Err(refuse("the archive holds this file twice".into()));
            }
        }
        last = name;
    }
    // The checksum stands at the end of the compressed data, behind the last entry.
    io::copy(&mut archive.into_inner(), &mut io::sink())
        .map_err(|error| broken(format!("after {last}: {error}")))?;
    if files.is_empty() {
        return Err(broken("expected JSON files under raw/, found none".into()));
    }
    Ok(files)
}

/// The name below `raw/` of a JSON file; GitHub puts everything into one folder.
fn raw_json(entry: &str) -> Option<&str> {
    let (_, file) = entry.split_once('/')?;
    file.strip_prefix("raw/").filter(|name| name.ends_with(".json"))
}

fn parse(bytes: &[u8]) -> Result<Vec<CorpusReview>, String> {
    let raw: Vec<RawReview> = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    raw.into_iter()
        .map(|raw| {
            let id = raw.review_id;
            if id.is_empty() || id.contains(char::is_whitespace) {
                return Err(format!("expected a `review_id` without white space, found {id:?}"));
            }
            let rating = raw.rating.parse().ok().filter(|rating| (1..=10).contains(rating));
            let rating = rating.ok_or_else(|| {
                format!("review {id}: expected a `rating` of 1 to 10, found {:?}", raw.rating)
            })?;
            Ok(CorpusReview { id, document: normalize(&raw.review), rating })
        })
        .collect()
}

/// Fails where more is read than `limit` bytes: gzip can hold a thousand times its size.
struct Limited<R> {
    reader: R,
    left: u64,
    limit: u64,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer)?;
        self.left = self.left.checked_sub(read as u64).ok_or_else(|| {
            io::Error::other(format!("expected at most {} bytes unpacked", self.limit))
        })?;
        Ok(read)
    }
}

/// Writes a corpus beside its place and hashes it.
pub(super) struct CorpusWriter {
    file: BufWriter<tempfile::NamedTempFile>,
    hasher: Sha256,
}

impl CorpusWriter {
    pub(super) fn new(out: &Path) -> Result<Self, DataError> {
        let folder = match out.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        };
        fs_err::create_dir_all(folder)?;
        let file = incoming(folder)?;
        let mut writer = Self { file: BufWriter::new(file), hasher: Sha256::new() };
        writer.write(HEADER)?;
        Ok(writer)
    }

    pub(super) fn write(&mut self, text: &str) -> Result<(), DataError> {
        self.hasher.update(text);
        Ok(self.file.write_all(text.as_bytes())?)
    }

    pub(super) fn publish(self, out: &Path) -> Result<String, DataError> {
        let file = self.file.into_inner().map_err(|error| error.into_error())?;
        // A crash must not leave the name without the content.
        file.as_file().sync_all()?;
        file.persist(out).map_err(|error| DataError::File {
            path: out.into(),
            message: error.error.to_string(),
        })?;
        Ok(hex(&self.hasher.finalize()))
    }
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn archive(entries: &[(&str, usize)]) -> tempfile::NamedTempFile {
        let entries = entries.iter();
        archive_of(entries.map(|(name, spaces)| (*name, "[]".to_owned() + &" ".repeat(*spaces))))
    }

    fn archive_of<'a>(
        entries: impl IntoIterator<Item = (&'a str, String)>,
    ) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut builder = tar::Builder::new(GzEncoder::new(file, Compression::fast()));
        for (name, json) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_size(json.len() as u64);
            header.set_mode(0o644);
            builder.append_data(&mut header, name, json.as_bytes()).unwrap();
        }
        builder.into_inner().unwrap().finish().unwrap()
    }

    fn refused(entries: &[(&str, usize)], limits: &Limits) -> String {
        let file = archive(entries);
        let message = read_archive(file.path(), limits).unwrap_err().to_string();
        message.strip_prefix(&file.path().display().to_string()).unwrap().to_owned()
    }

    #[test]
    fn an_archive_beyond_a_limit_is_refused() {
        let limits = Limits { entries: 3, entry_bytes: 100, unpacked_bytes: 6_000 };
        let good = [("x/raw/1.json", 0), ("x/raw/2.json", 98), ("x/ratings.txt", 1_000)];
        assert_eq!(read_archive(archive(&good).path(), &limits).unwrap().len(), 2);
        assert_eq!(
            refused(&[good[0], ("x/raw/2.json", 99)], &limits),
            ": x/raw/2.json: expected at most 100 bytes, found 101"
        );
        assert_eq!(
            refused(&[good[0], good[1], good[2], ("x/y.txt", 0)], &limits),
            ": x/y.txt: expected an archive of at most 3 entries"
        );
        let message = refused(&[good[0], ("x/large", 1 << 20)], &limits);
        assert!(message.contains("x/large: expected at most 6000 bytes unpacked"), "{message}");
        // What NSMC's repository holds beside the crawl is no error.
        assert!(
            read_archive(archive(&[good[0], ("x/ratings.txt", 17 << 20)]).path(), &LIMITS).is_ok()
        );
        let message = refused(&[("x/raw/1.json", 16 << 20)], &LIMITS);
        assert!(message.ends_with("expected at most 16777216 bytes, found 16777218"), "{message}");
    }

    #[test]
    fn an_id_is_of_one_text() {
        let review =
            |id, text| format!(r#"[{{"review_id": "{id}", "review": "{text}", "rating": "7"}}]"#);
        let build = |second: String| {
            let files = [("x/raw/1.json", review("2", "좋다")), ("x/raw/9.json", second)];
            let out = tempfile::tempdir().unwrap();
            build_corpus(archive_of(files).path(), &[], &out.path().join("corpus.tsv"))
        };
        assert_eq!(build(review("3", "나쁘다")).unwrap().reviews, 2);
        assert_eq!(build(review("2", " 좋다 ")).unwrap().repeated, 1);
        let message = build(review("2", "나쁘다")).unwrap_err().to_string();
        let expected = ": 9.json: the review id 2 stands in 1.json already, with another text";
        assert!(message.ends_with(expected), "{message}");
    }

    #[test]
    fn white_space_is_unicodes() {
        assert_eq!(
            normalize("\u{3000}\t 가\r\n나\u{a0}\u{2009}다\u{2028}라\u{85}\u{1f}마\u{200b}\n"),
            "가 나 다 라 \u{1f}마\u{200b}"
        );
        assert_eq!(normalize(" \u{3000}\n"), "");
    }

    #[test]
    fn files_are_those_of_the_crawl() {
        assert_eq!(raw_json("nsmc-cc0670e/raw/10001.json"), Some("10001.json"));
        for other in ["raw/1.json", "x/raw/1.txt", "x/code/1.json", "x/y/raw/1.json", "x/raw/"] {
            assert_eq!(raw_json(other), None, "{other}");
        }
    }
}
