use std::collections::HashSet;
use std::path::Path;

use super::corpus::{CorpusWriter, normalize};
use super::{CorpusReview, hold_out};
use crate::{DataError, Review};

/// What [`write_stars`] wrote: a classification data set of the crawl's own labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StarSummary {
    /// Reviews left out, because id or normalised text is that of a review others are measured on.
    pub left_out: usize,
    /// Reviews of the training file, by star from 1 to 10.
    pub train: [usize; 10],
    /// Reviews of the test file, likewise.
    pub test: [usize; 10],
    /// sha256 of the training file, in lowercase hex.
    pub train_sha256: String,
    /// sha256 of the test file.
    pub test_sha256: String,
}

/// Writes the corpus without `left_out` as `stars_train.txt` and `stars_test.txt`: lines of
/// `id\tdocument\trating` under that header. About `test_fraction` of the reviews are in the second,
/// chosen by a hash of their ids.
///
/// The corpus holds no review of NSMC's test set ([`build_corpus`](super::build_corpus)); with NSMC's
/// validation split in `left_out`, what is trained here has seen neither.
pub fn write_stars(
    corpus: &[CorpusReview],
    left_out: &[&Review],
    test_fraction: f64,
    folder: &Path,
) -> Result<StarSummary, DataError> {
    let ids: HashSet<&str> = left_out.iter().map(|review| review.id.as_str()).collect();
    let texts: HashSet<String> =
        left_out.iter().map(|review| normalize(&review.document)).collect();
    let kept: Vec<CorpusReview> = corpus
        .iter()
        .filter(|review| !ids.contains(review.id.as_str()) && !texts.contains(&review.document))
        .cloned()
        .collect();
    let split = hold_out(&kept, test_fraction);
    let write = |name: &str, indices: &[usize]| -> Result<([usize; 10], String), DataError> {
        let out = folder.join(name);
        let mut writer = CorpusWriter::new(&out)?;
        let mut stars = [0; 10];
        for &index in indices {
            let CorpusReview { id, document, rating } = &kept[index];
            stars[usize::from(*rating) - 1] += 1;
            writer.write(&format!("{id}\t{document}\t{rating}\n"))?;
        }
        Ok((stars, writer.publish(&out)?))
    };
    let (train, train_sha256) = write("stars_train.txt", &split.train)?;
    let (test, test_sha256) = write("stars_test.txt", &split.validation)?;
    let left_out = corpus.len() - kept.len();
    Ok(StarSummary { left_out, train, test, train_sha256, test_sha256 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_are_measured_on_is_left_out_by_id_and_by_text() {
        let corpus: Vec<CorpusReview> = (0..200)
            .map(|id: usize| CorpusReview {
                id: id.to_string(),
                document: format!("영화 {}", id % 150),
                rating: (id % 10) as u8 + 1,
            })
            .collect();
        let review = |id: &str, document: &str| Review {
            id: id.into(),
            document: document.into(),
            label: 0,
        };
        let measured = [review("7", "다른 글"), review("x", " 영화\u{3000}20 ")];
        let measured: Vec<&Review> = measured.iter().collect();
        let folder = tempfile::tempdir().unwrap();
        let summary = write_stars(&corpus, &measured, 0.2, folder.path()).unwrap();
        // 7 by its id; 20 and 170 by their text.
        assert_eq!(summary.left_out, 3);
        let read = |name| fs_err::read_to_string(folder.path().join(name)).unwrap();
        let (train, test) = (read("stars_train.txt"), read("stars_test.txt"));
        let lines: Vec<&str> = train.lines().skip(1).chain(test.lines().skip(1)).collect();
        assert_eq!(lines.len(), 197);
        assert!(train.starts_with("id\tdocument\trating\n0\t영화 0\t1\n"));
        assert!(!lines.iter().any(|line| line.starts_with("7\t") || line.contains("영화 20\t")));
        assert_eq!(summary.train.iter().sum::<usize>(), train.lines().count() - 1);
        assert_eq!(summary.test[3], test.lines().filter(|line| line.ends_with("\t4")).count());
        assert!(summary.test.iter().sum::<usize>() > 20);
    }
}
