use std::collections::HashMap;

use rayon::prelude::*;

use crate::{BaselineError, SparseRows};

/// Texts as weighted counts of their character n-grams: scikit-learn's `TfidfVectorizer` with
/// `analyzer="char"`. The names are its own; what is not named is its default.
///
/// A text is lowercased and runs of white space become one space. The weight of a term `t` in a text
/// is `tf · idf`, with `tf` its count `n` in the text or, sublinear, `1 + ln n`, and
/// `idf = ln((1 + N) / (1 + df)) + 1` of `N` training texts, in `df` of which `t` stands. Each text's
/// weights are divided by their Euclidean norm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TfidfVectorizer {
    /// Fewest and most characters of an n-gram, from 1 to [`Self::LONGEST`].
    pub ngram_range: (usize, usize),
    /// Training texts that an n-gram must stand in.
    pub min_df: usize,
    /// `1 + ln n` in the place of a count `n`.
    pub sublinear_tf: bool,
}

/// A [`TfidfVectorizer`] that has seen its training texts.
#[derive(Clone, Debug)]
pub struct Tfidf {
    options: TfidfVectorizer,
    columns: HashMap<Term, u32>,
    idf: Vec<f64>,
}

/// An n-gram: its characters, 21 bits each and none of them 0.
type Term = u128;

impl TfidfVectorizer {
    /// The longest n-gram.
    pub const LONGEST: usize = 6;

    /// Learns terms and weights from the training texts, and gives those texts as rows.
    ///
    /// # Panics
    ///
    /// If `ngram_range` is empty or leaves its bounds.
    pub fn fit_transform<T: AsRef<str> + Sync>(
        &self,
        texts: &[T],
    ) -> Result<(Tfidf, SparseRows), BaselineError> {
        let (low, high) = self.ngram_range;
        assert!((1..=high).contains(&low) && high <= Self::LONGEST, "n-grams of {low} to {high}");
        let counted: Vec<_> = texts.par_iter().map(|text| self.count(text.as_ref())).collect();
        let mut frequencies: HashMap<Term, u32> = HashMap::new();
        for (term, _) in counted.iter().flatten() {
            *frequencies.entry(*term).or_default() += 1;
        }
        frequencies.retain(|_, frequency| *frequency as usize >= self.min_df);
        if frequencies.is_empty() {
            let (min_df, texts) = (self.min_df, texts.len());
            return Err(BaselineError::NoFeatures { low, high, min_df, texts });
        }
        // A hash map's order is not the same twice, and sums are in the order of columns.
        let mut terms: Vec<(Term, u32)> = frequencies.into_iter().collect();
        terms.sort_unstable();
        let whole = (1 + texts.len()) as f64;
        let idf = terms.iter().map(|(_, df)| (whole / f64::from(1 + df)).ln() + 1.0).collect();
        let columns = (0..).zip(&terms).map(|(column, (term, _))| (*term, column)).collect();
        let tfidf = Tfidf { options: *self, columns, idf };
        let rows = counted.into_par_iter().map(|counts| tfidf.weigh(&counts)).collect();
        let rows = SparseRows::new(rows, tfidf.width());
        Ok((tfidf, rows))
    }

    /// The terms of a text, each once, with their counts.
    fn count(&self, text: &str) -> Vec<(Term, u32)> {
        let text = preprocess(text);
        let (low, high) = self.ngram_range;
        let mut terms: Vec<Term> = Vec::with_capacity(text.len() * (high - low + 1));
        for length in low..=high.min(text.len()) {
            let term = |window: &[char]| {
                window
                    .iter()
                    .fold(0, |term, &character| term << 21 | Term::from(character as u32 + 1))
            };
            terms.extend(text.windows(length).map(term));
        }
        terms.sort_unstable();
        let alike = terms.chunk_by(|a, b| a == b);
        alike.map(|terms| (terms[0], terms.len() as u32)).collect()
    }
}

impl Tfidf {
    /// Number of terms.
    pub fn width(&self) -> usize {
        self.idf.len()
    }

    /// Texts as rows; terms that the training texts lack count nothing.
    pub fn transform<T: AsRef<str> + Sync>(&self, texts: &[T]) -> SparseRows {
        let row = |text: &T| self.weigh(&self.options.count(text.as_ref()));
        SparseRows::new(texts.par_iter().map(row).collect(), self.width())
    }

    fn weigh(&self, counts: &[(Term, u32)]) -> Vec<(u32, f32)> {
        let weight = |&(term, count): &(Term, u32)| {
            let column = *self.columns.get(&term)?;
            let count = f64::from(count);
            let tf = if self.options.sublinear_tf { 1.0 + count.ln() } else { count };
            Some((column, tf * self.idf[column as usize]))
        };
        let weights: Vec<(u32, f64)> = counts.iter().filter_map(weight).collect();
        let norm = weights.iter().map(|(_, weight)| weight * weight).sum::<f64>().sqrt();
        weights.into_iter().map(|(column, weight)| (column, (weight / norm) as f32)).collect()
    }
}

/// Lowercase, with runs of white space as one space, as scikit-learn's analysers have it: a single
/// character of white space stays what it is.
fn preprocess(text: &str) -> Vec<char> {
    // Python counts the four separators of ASCII as white space, too.
    let is_space =
        |character: &char| character.is_whitespace() || ('\x1c'..='\x1f').contains(character);
    let characters: Vec<char> = text.to_lowercase().chars().collect();
    let runs = characters.chunk_by(|a, b| is_space(a) && is_space(b));
    runs.map(|run| if run.len() > 1 { ' ' } else { run[0] }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_white_space_become_one_space_and_single_ones_stay() {
        let text: String = preprocess("Ab\t\u{3000}C\td \n").into_iter().collect();
        assert_eq!(text, "ab c\td ");
    }

    #[test]
    fn n_grams_of_different_lengths_are_different_terms() {
        let options = TfidfVectorizer { ngram_range: (1, 3), min_df: 1, sublinear_tf: false };
        let counts = options.count("aaa");
        assert_eq!(counts.iter().map(|(_, count)| *count).collect::<Vec<_>>(), [3, 2, 1]);
        // The lowest character and the highest.
        assert_eq!(options.count("\0\0\u{10ffff}").len(), 2 + 2 + 1);
    }

    #[test]
    fn a_text_without_a_known_term_is_a_row_of_zeros() {
        let options = TfidfVectorizer { ngram_range: (1, 1), min_df: 2, sublinear_tf: true };
        let (tfidf, rows) = options.fit_transform(&["ab", "ac", ""]).unwrap();
        // `a` alone stands in two texts.
        assert_eq!((tfidf.width(), rows.len(), rows.entries()), (1, 3, 2));
        assert_eq!(tfidf.transform(&["", "zz"]).entries(), 0);
        let message = options.fit_transform(&["ab", "cd"]).unwrap_err().to_string();
        assert!(message.contains("in 2 or more of the 2 training texts"), "{message}");
    }
}
