use std::collections::HashSet;
use std::ops::Range;

use rand::seq::SliceRandom;
use rand::{Rng, RngExt};

use crate::DataError;

/// Tokens that stand for no part of a text, and the one for a word that the vocabulary lacks.
const STRUCTURE: [&str; 4] = ["[PAD]", "[CLS]", "[SEP]", "[MASK]"];
const UNKNOWN: &str = "[UNK]";

/// What masking has to know of a BERT vocabulary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MaskingVocabulary {
    mask: u32,
    structure: [u32; 4],
    /// What a token may be replaced by: all but the special ones.
    ordinary: Vec<u32>,
    /// For each entry, whether it goes on with the word of the token before it.
    continues: Vec<bool>,
}

impl MaskingVocabulary {
    /// From a WordPiece vocabulary with BERT's special tokens; an entry's place is its id.
    pub fn new<S: AsRef<str>>(vocab: &[S]) -> Result<Self, DataError> {
        let id = |token: &str| {
            let place = vocab.iter().position(|entry| entry.as_ref() == token);
            place.map(|place| place as u32).ok_or_else(|| DataError::Vocabulary {
                message: format!("has no `{token}`, without which no token can be masked"),
            })
        };
        let mut structure = [0; 4];
        for (place, token) in structure.iter_mut().zip(STRUCTURE) {
            *place = id(token)?;
        }
        let special: HashSet<u32> = structure.into_iter().chain([id(UNKNOWN)?]).collect();
        let ordinary: Vec<u32> =
            (0..vocab.len() as u32).filter(|id| !special.contains(id)).collect();
        if ordinary.is_empty() {
            return Err(DataError::Vocabulary {
                message: "holds nothing but special tokens".into(),
            });
        }
        let continues = vocab.iter().map(|entry| entry.as_ref().starts_with("##")).collect();
        Ok(Self { mask: id("[MASK]")?, structure, ordinary, continues })
    }

    /// For each token, whether it starts a word.
    pub fn starts(&self, ids: &[u32]) -> Vec<bool> {
        ids.iter().map(|&id| !self.continues[id as usize]).collect()
    }

    /// Whether a token stands for a part of a text. A word that the vocabulary lacks does.
    pub fn is_maskable(&self, id: u32) -> bool {
        !self.structure.contains(&id)
    }
}

/// A review with some of its words hidden.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Masked {
    /// All tokens, as many as before.
    pub input_ids: Vec<u32>,
    /// Where a token is to be predicted, ascending.
    pub positions: Vec<u32>,
    /// The tokens that stood there.
    pub labels: Vec<u32>,
}

/// Chooses whole words and hides them: BERT's masked language model (Devlin et al., 2019, 3.1) with
/// the later whole-word masking of its repository.
///
/// A word is a token that starts one and those after it that do not; tokens that stand for no text
/// belong to none. Words are drawn until `fraction` of the tokens in words are covered, at least
/// one. Of the tokens covered, each for itself, 80 % become `[MASK]`, 10 % any token that is not
/// special, and 10 % stay.
///
/// Deviation: BERT's script passes over a word that would cover too many tokens. In a review of 20
/// tokens no word of four would ever be hidden, and in one long word nothing. Here such a word is
/// taken with the probability at which the covered share is `fraction` on average. Only in reviews
/// so short that their first word would not be taken is it more.
///
/// # Shapes
/// - ids, starts: `[length]`
/// - positions, labels: `[chosen]`, not empty if any token is maskable
///
/// # Panics
///
/// If there are not as many `starts` as `ids`.
pub fn mask(
    ids: &[u32],
    starts: &[bool],
    vocabulary: &MaskingVocabulary,
    fraction: f64,
    rng: &mut impl Rng,
) -> Masked {
    let mut positions: Vec<usize> =
        choose(words(ids, starts, vocabulary), fraction, rng).into_iter().flatten().collect();
    positions.sort_unstable();
    let mut input_ids = ids.to_vec();
    for &position in &positions {
        match rng.random_range(0..10_u32) {
            0..8 => input_ids[position] = vocabulary.mask,
            8 => {
                let drawn = rng.random_range(0..vocabulary.ordinary.len() as u32);
                input_ids[position] = vocabulary.ordinary[drawn as usize];
            }
            _ => {}
        }
    }
    Masked {
        labels: positions.iter().map(|&position| ids[position]).collect(),
        positions: positions.into_iter().map(|position| position as u32).collect(),
        input_ids,
    }
}

/// The positions of each word.
fn words(ids: &[u32], starts: &[bool], vocabulary: &MaskingVocabulary) -> Vec<Range<usize>> {
    assert_eq!(ids.len(), starts.len(), "one start per token");
    let mut words: Vec<Range<usize>> = Vec::new();
    for (position, (&id, &starts)) in ids.iter().zip(starts).enumerate() {
        if !vocabulary.is_maskable(id) {
            continue;
        }
        match words.last_mut() {
            Some(word) if !starts && word.end == position => word.end += 1,
            _ => words.push(position..position + 1),
        }
    }
    words
}

fn choose(mut words: Vec<Range<usize>>, fraction: f64, rng: &mut impl Rng) -> Vec<Range<usize>> {
    let mut left = fraction * words.iter().map(|word| word.len()).sum::<usize>() as f64;
    words.shuffle(rng);
    let mut chosen = 0;
    for word in &words {
        let length = word.len() as f64;
        if length > left {
            chosen += usize::from(rng.random::<f64>() * length < left);
            break;
        }
        left -= length;
        chosen += 1;
    }
    words.truncate(chosen.max(1));
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pretraining::generator;

    const FIRST_ORDINARY: u32 = 5;
    const CONTINUING: u32 = 45;
    const SIZE: u32 = 105;

    /// Five special tokens, 40 that start a word, 60 that go on with one.
    fn vocabulary() -> MaskingVocabulary {
        let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].map(str::to_owned);
        let starts = (FIRST_ORDINARY..CONTINUING).map(|id| format!("a{id}"));
        let continues = (CONTINUING..SIZE).map(|id| format!("##a{id}"));
        let vocab: Vec<String> = special.into_iter().chain(starts).chain(continues).collect();
        MaskingVocabulary::new(&vocab).unwrap()
    }

    /// `[CLS]`, words of the given lengths and `[SEP]`; no two tokens are the same up to 40 words.
    fn review(lengths: &[usize]) -> Vec<u32> {
        let mut ids = vec![2];
        let mut continues = (CONTINUING..SIZE).cycle();
        for (word, &length) in lengths.iter().enumerate() {
            ids.push(FIRST_ORDINARY + word as u32 % 40);
            ids.extend(continues.by_ref().take(length - 1));
        }
        ids.push(3);
        ids
    }

    fn masked(ids: &[u32], fraction: f64, name: &str) -> Masked {
        let vocabulary = vocabulary();
        let mut rng = generator("mask", 7, 0, name);
        mask(ids, &vocabulary.starts(ids), &vocabulary, fraction, &mut rng)
    }

    /// Reviews of 1 to 30 words of 1 to 6 tokens.
    fn reviews() -> Vec<Vec<u32>> {
        let lengths = |review: usize| -> Vec<usize> {
            (0..=review * 13 % 30).map(|word| 1 + (review * 7 + word * word) % 6).collect()
        };
        (0..4_000).map(|number| review(&lengths(number))).collect()
    }

    #[test]
    fn about_the_asked_share_is_chosen_and_always_something() {
        for fraction in [0.15, 0.4] {
            let (mut chosen, mut all) = (0, 0);
            for (name, ids) in reviews().iter().enumerate() {
                let count = masked(ids, fraction, &name.to_string()).positions.len();
                let tokens = ids.len() - 2;
                assert!((1..=tokens).contains(&count));
                // At most one word beyond the share, at most one short of it.
                assert!((count as f64 - fraction * tokens as f64).abs() <= 6.0);
                // Where a single word may be more than the share, one is always taken.
                if fraction * tokens as f64 >= 6.0 {
                    chosen += count;
                    all += tokens;
                }
            }
            assert!(all > 20_000);
            let share = f64::from(chosen as u32) / f64::from(all as u32);
            assert!((share - fraction).abs() < 0.004, "{share} instead of {fraction}");
        }
    }

    #[test]
    fn whole_words_are_chosen_and_long_ones_are_not_passed_over() {
        let vocabulary = vocabulary();
        let (mut chosen, mut words_of) = ([0_usize; 7], [0_usize; 7]);
        for (name, ids) in reviews().iter().enumerate() {
            let starts = vocabulary.starts(ids);
            let positions: HashSet<u32> =
                masked(ids, 0.15, &name.to_string()).positions.into_iter().collect();
            let mut position = 1;
            while position < ids.len() - 1 {
                let end = (position + 1..ids.len() - 1).find(|&next| starts[next]);
                let word = position as u32..end.unwrap_or(ids.len() - 1) as u32;
                let hidden = word.clone().filter(|place| positions.contains(place)).count();
                assert!(hidden == 0 || hidden == word.len(), "{hidden} of {word:?}");
                words_of[word.len()] += 1;
                chosen[word.len()] += usize::from(hidden > 0);
                position = word.end as usize;
            }
            assert!(!positions.contains(&0) && !positions.contains(&(ids.len() as u32 - 1)));
        }
        for length in 1..=6 {
            let share = chosen[length] as f64 / words_of[length] as f64;
            assert!((0.10..0.20).contains(&share), "{share} of the words of {length} tokens");
        }
    }

    #[test]
    fn a_review_of_one_long_word_is_hidden_whole() {
        let ids = review(&[9]);
        for name in ["a", "b", "c", "d"] {
            let masked = masked(&ids, 0.15, name);
            assert_eq!(masked.positions, (1..10).collect::<Vec<u32>>());
            assert_eq!(masked.labels, ids[1..10]);
        }
    }

    #[test]
    fn of_the_chosen_80_percent_are_hidden_10_drawn_and_10_stay() {
        let (mut hidden, mut stayed) = (0, 0);
        let mut drawn = vec![0_usize; SIZE as usize];
        let reviews = reviews();
        for (name, ids) in reviews.iter().enumerate() {
            let masked = masked(ids, 0.15, &name.to_string());
            let mut before = masked.input_ids.clone();
            for (&position, &label) in masked.positions.iter().zip(&masked.labels) {
                assert_eq!(label, ids[position as usize]);
                match masked.input_ids[position as usize] {
                    4 => hidden += 1,
                    token if token == label => stayed += 1,
                    token => drawn[token as usize] += 1,
                }
                before[position as usize] = label;
            }
            assert!(masked.positions.windows(2).all(|pair| pair[0] < pair[1]));
            assert_eq!(&before, ids, "only chosen tokens are changed");
        }
        let replaced: usize = drawn.iter().sum();
        let all = (hidden + stayed + replaced) as f64;
        assert!(all > 20_000.0, "{all}");
        // A token drawn at random is that which stood there one time in a hundred.
        for (count, share) in [(hidden, 0.8), (replaced, 0.099), (stayed, 0.101)] {
            assert!((count as f64 / all - share).abs() < 0.01, "{count} of {all}, not {share}");
        }
        // Any ordinary token may be drawn, and none that is special.
        let (special, ordinary) = drawn.split_at(FIRST_ORDINARY as usize);
        assert_eq!(special, [0; 5]);
        assert!(ordinary.iter().all(|&count| count > 0), "{ordinary:?}");
    }

    #[test]
    fn tokens_of_a_word_are_replaced_each_for_itself() {
        let mixed = (0..200).filter(|name| {
            let masked = masked(&review(&[6]), 0.15, &name.to_string());
            let hidden = masked.input_ids.iter().filter(|&&id| id == 4).count();
            (1..6).contains(&hidden)
        });
        // 1 - 0.8^6 - 0.2^6 = 0.74 of them.
        assert!((120..175).contains(&mixed.count()));
    }

    #[test]
    fn tokens_that_stand_for_no_text_are_never_chosen_and_end_a_word() {
        // [CLS] [SEP] has nothing to hide.
        let empty = Masked { input_ids: vec![2, 3], positions: vec![], labels: vec![] };
        assert_eq!(masked(&[2, 3], 0.15, ""), empty);
        // A review may hold the text "[MASK]" or "[SEP]"; an unknown word is a word.
        let ids = [2, 5, 4, 45, 3, 1, 3];
        let vocabulary = vocabulary();
        assert_eq!(words(&ids, &vocabulary.starts(&ids), &vocabulary), [1..2, 3..4, 5..6]);
        assert_eq!(masked(&ids, 1.0, "").positions, [1, 3, 5]);
    }

    #[test]
    fn the_generator_alone_decides() {
        let ids = review(&[2; 20]);
        assert_eq!(masked(&ids, 0.15, "1"), masked(&ids, 0.15, "1"));
        assert_ne!(masked(&ids, 0.15, "1"), masked(&ids, 0.15, "2"));
        // Written down, so that a training can be resumed by a later version.
        let masked = masked(&ids, 0.15, "1");
        assert_eq!(masked.positions, [11, 12, 23, 24, 37, 38]);
        let shown: Vec<u32> =
            masked.positions.iter().map(|&place| masked.input_ids[place as usize]).collect();
        assert_eq!(shown, [4, 88, 16, 4, 4, 4]);
    }

    #[test]
    fn a_vocabulary_without_what_masking_needs_is_refused() {
        let refused = |vocab: &[&str]| MaskingVocabulary::new(vocab).unwrap_err().to_string();
        assert_eq!(
            refused(&["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a"]),
            "the vocabulary has no `[MASK]`, without which no token can be masked"
        );
        assert_eq!(
            refused(&["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]),
            "the vocabulary holds nothing but special tokens"
        );
    }
}
