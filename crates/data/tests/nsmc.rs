//! The real corpus: what the manifest documents and what the splits make of it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashSet;
use std::path::PathBuf;

use nsmc_data::{
    BertTokenizer, EncodedReviews, Format, Review, check_class_counts, read_reviews, split,
    stand_in,
};

fn read(file: &str) -> (PathBuf, Vec<Review>) {
    let mirror = std::env::var_os("NSMC_MIRROR").expect("NSMC_MIRROR names a mirror");
    let path = PathBuf::from(mirror).join("nsmc").join(file);
    let format = Format {
        id_column: Some("id".into()),
        text_column: "document".into(),
        label_column: "label".into(),
        labels: vec!["0".into(), "1".into()],
        delimiter: b'\t',
        quoting: false,
    };
    let reviews = read_reviews(&path, &format).unwrap();
    (path, reviews)
}

#[test]
#[ignore = "needs NSMC: set NSMC_MIRROR and run with --ignored"]
fn each_of_the_200_000_rows_is_kept() {
    let (path, train) = read("ratings_train.txt");
    let (test_path, test) = read("ratings_test.txt");
    check_class_counts(&path, &train, &[75_173, 74_827]).unwrap();
    check_class_counts(&test_path, &test, &[24_827, 25_173]).unwrap();
    let empty = |reviews: &[Review]| reviews.iter().filter(|r| r.document.is_empty()).count();
    assert_eq!((empty(&train), empty(&test)), (5, 3));
    assert_eq!(train.iter().filter(|review| review.document.contains('"')).count(), 623);
    assert_eq!(stand_in(&test, &train).iter().filter(|&&seen| seen).count(), 1_571);
}

#[test]
#[ignore = "needs NSMC: set NSMC_MIRROR and run with --ignored"]
fn the_papers_sizes_are_nested_and_share_one_validation_split() {
    let (_, train) = read("ratings_train.txt");
    let sizes = [50_000, 100_000, 150_000];
    for fraction in [0.0, 0.1] {
        let splits = sizes.map(|size| split(&train, Some(size), fraction).unwrap());
        for (split, size) in splits.iter().zip(sizes) {
            assert_eq!(split.train.len(), size - (size as f64 * fraction).round() as usize);
            assert_eq!(split.validation.len(), (150_000.0 * fraction).round() as usize);
            let positive = split.train.iter().filter(|&&i| train[i].label == 1).count();
            let share = positive as f64 / split.train.len() as f64;
            assert!((share - 74_827.0 / 150_000.0).abs() < 1e-4, "{share}");
        }
        for pair in splits.windows(2) {
            let larger: HashSet<usize> = pair[1].train.iter().copied().collect();
            assert!(pair[0].train.iter().all(|index| larger.contains(index)));
            assert_eq!(pair[0].validation, pair[1].validation);
        }
    }
}

#[test]
#[ignore = "needs NSMC: set NSMC_MIRROR and run with --ignored"]
fn a_vocabulary_is_trained_and_every_review_encoded() {
    let (_, train) = read("ratings_train.txt");
    let documents: Vec<&str> = train.iter().map(|review| review.document.as_str()).collect();
    let started = std::time::Instant::now();
    let tokenizer = BertTokenizer::train(&documents, 8_000).unwrap();
    println!("vocabulary trained in {:.1?}", started.elapsed());
    assert_eq!(tokenizer.vocab_size(), 8_000);
    assert_eq!(BertTokenizer::train(&documents, 8_000).unwrap().vocab(), tokenizer.vocab());
    let started = std::time::Instant::now();
    let encoded = EncodedReviews::encode(&train, &tokenizer, 128).unwrap();
    println!("150,000 reviews encoded in {:.1?}", started.elapsed());
    let unknown = tokenizer.token_to_id("[UNK]").unwrap();
    let tokens: usize = (0..encoded.len()).map(|review| encoded.tokens(review).len()).sum();
    let unknowns: usize = (0..encoded.len())
        .map(|review| encoded.tokens(review).iter().filter(|&&id| id == unknown).count())
        .sum();
    println!("{:.1} tokens a review, {unknowns} of {tokens} unknown", tokens as f64 / 150_000.0);
    assert!(unknowns * 200 < tokens, "{unknowns} of {tokens} tokens are unknown");
}
