use std::path::Path;

use super::corpus::normalize;
use crate::split::hash;
use crate::{DataError, Format, Review, Split, read_reviews};

/// One review of the corpus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CorpusReview {
    /// Unique in the corpus.
    pub id: String,
    /// The text, with single spaces for white space; never empty.
    pub document: String,
    /// Stars, 1 to 10.
    pub rating: u8,
}

/// The stars as a class index, 0 to 9.
impl From<CorpusReview> for Review {
    fn from(review: CorpusReview) -> Self {
        let label = usize::from(review.rating) - 1;
        Self { id: review.id, document: review.document, label }
    }
}

/// Reads a file that [`build_corpus`](super::build_corpus) wrote, in its order.
///
/// # Errors
///
/// An error names the line of a text that is empty or has white space other than single spaces within,
/// of a rating that is not one of 1 to 10, and of an id that occurs twice.
pub fn read_corpus(path: &Path) -> Result<Vec<CorpusReview>, DataError> {
    let format = Format {
        id_column: Some("id".into()),
        text_column: "document".into(),
        label_column: "rating".into(),
        labels: (1..=10).map(|rating: u8| rating.to_string()).collect(),
        delimiter: b'\t',
        quoting: false,
    };
    let reviews = read_reviews(path, &format)?;
    let corpus = reviews.into_iter().enumerate().map(|(index, review)| {
        let document = review.document;
        if document.is_empty() || normalize(&document) != document {
            let message = format!(
                "expected a text with single spaces for white space, as the corpus is built, \
                 found {document:?}"
            );
            // Every line is a row, below the header.
            return Err(DataError::Line { path: path.into(), line: index + 2, message });
        }
        Ok(CorpusReview { id: review.id, document, rating: review.label as u8 + 1 })
    });
    corpus.collect()
}

/// Holds out about `fraction` of the reviews to measure on.
///
/// A hash of a review's id decides alone, whatever other reviews there are: what is held out of the
/// corpus is held out of every part of it.
pub fn hold_out(reviews: &[CorpusReview], fraction: f64) -> Split {
    // Of 64 bits `f64` holds 53 exactly.
    let place = |id: &str| (hash("held out", id) >> 11) as f64 / (1_u64 << 53) as f64;
    let held_out = |&index: &usize| place(&reviews[index].id) < fraction;
    let (validation, train) = (0..reviews.len()).partition(held_out);
    Split { train, validation }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn corpus() -> Vec<CorpusReview> {
        let review = |id: usize| CorpusReview {
            id: (id * 7919).to_string(),
            document: format!("{id} 번째 \"리뷰"),
            rating: (id % 10 + 1) as u8,
        };
        (0..10_000).map(review).collect()
    }

    fn ids(reviews: &[CorpusReview], indices: &[usize]) -> HashSet<String> {
        indices.iter().map(|&index| reviews[index].id.clone()).collect()
    }

    fn read(text: impl AsRef<[u8]>) -> Result<Vec<CorpusReview>, DataError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("corpus.txt");
        fs_err::write(&path, text).unwrap();
        read_corpus(&path)
    }

    #[test]
    fn a_corpus_is_read_as_it_was_written() {
        let reviews = &corpus()[..20];
        let mut text = super::super::corpus::HEADER.to_owned();
        for review in reviews {
            text += &format!("{}\t{}\t{}\n", review.id, review.document, review.rating);
        }
        assert_eq!(read(&text).unwrap(), reviews);
        let labelled: Vec<Review> = reviews.iter().cloned().map(Review::from).collect();
        assert_eq!((labelled[0].label, labelled[9].label), (0, 9));
        assert_eq!(labelled[7].document, reviews[7].document);
    }

    #[test]
    fn a_bad_line_is_named() {
        let good = "id\tdocument\trating\n1\t좋다\t10\n";
        for (tail, expected) in [
            ("2\t좋다\n", "corpus.txt:3: expected 3 fields, as in the header, found 2"),
            ("2\t좋다\t0\n", "found \"0\""),
            ("2\t좋다\t11\n", "corpus.txt:3: expected a label of \"1\","),
            ("2\t\t1\n", "corpus.txt:3: expected a text with single spaces for white space"),
            ("2\t별로\t1\n3\t정말  별로\t1\n", "corpus.txt:4: expected a text with single spaces"),
            ("2\t별로\u{3000}별로\t1\n", "corpus.txt:3: expected a text with single spaces"),
            ("2\t별로 \t1\n", "corpus.txt:3: expected a text with single spaces"),
            ("2\t별로\t1\n1\t별로\t1\n", "corpus.txt:4: the id \"1\" stands on line 2 already"),
        ] {
            let message = read(format!("{good}{tail}")).unwrap_err().to_string();
            assert!(message.contains(expected), "{expected} is not in {message}");
        }
        let message = read("id\tdocument\tlabel\n1\t좋다\t1\n").unwrap_err().to_string();
        assert!(message.contains("corpus.txt:1: expected a column `rating`"), "{message}");
    }

    #[test]
    fn reviews_are_held_out_by_their_ids_alone() {
        let reviews = corpus();
        let Split { train, validation } = hold_out(&reviews, 0.05);
        // Four standard deviations of a binomial.
        assert!((413..588).contains(&validation.len()), "{}", validation.len());
        assert_eq!(train.len() + validation.len(), reviews.len());
        assert!(ids(&reviews, &train).is_disjoint(&ids(&reviews, &validation)));
        let clustered = validation.iter().filter(|&&index| index < 5_000).count();
        assert!((180..320).contains(&clustered), "{clustered}");

        // A part of the corpus, in another order, holds out the part of the same reviews.
        let mut part: Vec<CorpusReview> = reviews.iter().step_by(3).cloned().collect();
        part.reverse();
        let expected: HashSet<String> = ids(&reviews, &validation)
            .intersection(&part.iter().map(|review| review.id.clone()).collect())
            .cloned()
            .collect();
        assert_eq!(ids(&part, &hold_out(&part, 0.05).validation), expected);
        // Smaller shares are nested.
        let fewer = ids(&reviews, &hold_out(&reviews, 0.01).validation);
        assert!(!fewer.is_empty() && fewer.is_subset(&ids(&reviews, &validation)));
        assert!(hold_out(&reviews, 0.0).validation.is_empty());
        assert!(hold_out(&reviews, 1.0).train.is_empty());
    }

    #[test]
    fn the_choice_is_fixed_for_good() {
        // Written down, so that no later version measures on what another version was trained on.
        let reviews = corpus();
        assert_eq!(hold_out(&reviews[..1_000], 0.005).validation, [211, 218, 432, 972]);
    }
}
