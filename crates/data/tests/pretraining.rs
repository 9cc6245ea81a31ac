//! Pre-training's data, from an archive of the crawl to masked batches.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use flate2::Compression;
use flate2::write::GzEncoder;
use nsmc_data::pretraining::{
    CorpusReview, CorpusSummary, MaskingVocabulary, Packing, PretrainingBatch, PretrainingLoader,
    build_corpus, hold_out, mask, read_corpus,
};
use nsmc_data::{BertTokenizer, DataError, EncodedReviews, Format, Review, read_reviews, split};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde_json::json;

/// An entry of an archive: a file, or a link to one.
enum Entry {
    File(&'static str, String),
    Link(&'static str),
}

fn reviews(rows: &[(&str, &str, &str)]) -> String {
    let rows = rows.iter().map(|(id, review, rating)| {
        json!({"review_id": id, "movie_id": "1", "review": review, "rating": rating, "date": ""})
    });
    rows.collect::<serde_json::Value>().to_string()
}

fn write_archive(path: &Path, entries: &[Entry]) {
    let file = GzEncoder::new(fs_err::File::create(path).unwrap(), Compression::fast());
    let mut builder = tar::Builder::new(file);
    for entry in entries {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        match entry {
            Entry::File(name, content) => {
                header.set_size(content.len() as u64);
                builder.append_data(&mut header, name, content.as_bytes()).unwrap();
            }
            Entry::Link(name) => {
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_size(0);
                builder.append_link(&mut header, name, "/etc/passwd").unwrap();
            }
        }
    }
    builder.into_inner().unwrap().finish().unwrap();
}

fn test_review(id: &str, document: &str) -> Review {
    Review { id: id.into(), document: document.into(), label: 0 }
}

struct Built {
    folder: tempfile::TempDir,
    result: Result<CorpusSummary, DataError>,
}

impl Built {
    fn out(&self) -> PathBuf {
        self.folder.path().join("made/corpus.txt")
    }
}

fn build(entries: &[Entry], test: &[Review]) -> Built {
    let folder = tempfile::tempdir().unwrap();
    let archive = folder.path().join("nsmc.tar.gz");
    write_archive(&archive, entries);
    let result = build_corpus(&archive, test, &folder.path().join("made/corpus.txt"));
    Built { folder, result }
}

#[test]
fn a_corpus_holds_each_text_once_and_nothing_of_the_test_set() {
    let entries = [
        Entry::File("nsmc-1/README.md", "no JSON".into()),
        // Not in the order of names: 10.json comes before 9.json.
        Entry::File(
            "nsmc-1/raw/9.json",
            reviews(&[("901", "좋다", "2"), ("902", "정말\t\u{3000}\n별로 ", "3")]),
        ),
        Entry::File(
            "nsmc-1/raw/10.json",
            reviews(&[
                ("102", "\u{3000}좋다\r\n", "10"),
                ("101", "  \u{a0}\n", "1"),
                ("103", "시험의 id", "5"),
                ("104", "시험의  글", "5"),
                ("105", "\"인용\" 하나", "7"),
            ]),
        ),
        Entry::File("nsmc-1/raw/list.txt", "no JSON".into()),
        Entry::Link("nsmc-1/raw/11.json"),
    ];
    let test =
        [test_review("103", "다른 글"), test_review("7", " 시험의\t글"), test_review("8", "")];
    let built = build(&entries, &test);
    let text = fs_err::read_to_string(built.out()).unwrap();
    assert_eq!(
        text,
        "id\tdocument\trating\n102\t좋다\t10\n105\t\"인용\" 하나\t7\n902\t정말 별로\t3\n"
    );
    let summary = CorpusSummary {
        files: 2,
        found: 7,
        empty: 1,
        test_ids: 1,
        test_texts: 1,
        repeated: 1,
        reviews: 3,
        characters: 2 + 7 + 5,
        // sha256sum of the text above.
        sha256: "db4620eef73fc905aa629119c785286d90c131e6e8d5761c14c87183ce623eaa".into(),
    };
    assert_eq!(built.result.as_ref().unwrap(), &summary);
    let made: Vec<_> = fs_err::read_dir(built.out().parent().unwrap()).unwrap().collect();
    assert_eq!(made.len(), 1, "no partial file stays");
    let read = read_corpus(&built.out()).unwrap();
    let first = CorpusReview { id: "102".into(), document: "좋다".into(), rating: 10 };
    assert_eq!((read.len(), &read[0]), (3, &first));
}

#[test]
fn a_bad_archive_is_one_error_that_names_it_and_leaves_the_old_corpus() {
    let good = || Entry::File("x/raw/1.json", reviews(&[("1", "좋다", "9")]));
    let file = |content: String| Entry::File("x/raw/2.json", content);
    for (entries, expected) in [
        (vec![good(), file("[{".into())], "nsmc.tar.gz: x/raw/2.json: EOF while parsing"),
        (vec![good(), file("[{\"review_id\": \"2\"}]".into())], "missing field `review`"),
        (
            vec![good(), file(reviews(&[("2", "", "0")]))],
            "x/raw/2.json: review 2: expected a `rating` of 1 to 10, found \"0\"",
        ),
        (vec![file(reviews(&[("2\t3", "", "1")]))], "expected a `review_id` without white space"),
        (vec![good(), good()], "x/raw/1.json: the archive holds this file twice"),
        (
            vec![Entry::Link("x/raw/1.json")],
            "nsmc.tar.gz: expected JSON files under raw/, found none",
        ),
    ] {
        let built = build(&entries, &[]);
        let message = built.result.as_ref().unwrap_err().to_string();
        assert!(message.contains(expected), "{expected} is not in {message}");
        assert!(message.contains("nsmc.tar.gz: "), "{message}");
        assert!(!built.out().exists());
    }

    let folder = tempfile::tempdir().unwrap();
    let (archive, out) = (folder.path().join("nsmc.tar.gz"), folder.path().join("corpus.txt"));
    write_archive(&archive, &[good(), Entry::File("x/large", "무엇 ".repeat(20_000))]);
    fs_err::write(&out, "old").unwrap();
    let bytes = fs_err::read(&archive).unwrap();
    let mut flipped = bytes.clone();
    // The checksum stands before the length in the last eight bytes.
    let checksum = flipped.len() - 8;
    flipped[checksum] ^= 1;
    for damaged in [&bytes[..bytes.len() - 9], &bytes[..bytes.len() / 2], b"no gzip", &flipped] {
        fs_err::write(&archive, damaged).unwrap();
        let message = build_corpus(&archive, &[], &out).unwrap_err().to_string();
        assert!(message.contains("nsmc.tar.gz"), "{message}");
        assert_eq!(fs_err::read_to_string(&out).unwrap(), "old");
    }
}

fn sample() -> Vec<Review> {
    let words =
        ["재미있는", "영화", "정말", "재미없다", "ㅋㅋㅋ", "최고예요!!", "배우들의", "연기가"];
    (0..600)
        .map(|id: usize| {
            let words = (0..id * 7 % 23).map(|place| words[(id + place * place) % words.len()]);
            test_review(&(id * 31).to_string(), &words.collect::<Vec<_>>().join(" "))
        })
        .collect()
}

struct Loaders {
    encoded: Arc<EncodedReviews>,
    ids: Arc<[String]>,
    vocabulary: MaskingVocabulary,
}

impl Loaders {
    fn new() -> Self {
        let reviews = sample();
        let documents: Vec<&str> = reviews.iter().map(|review| review.document.as_str()).collect();
        let tokenizer = BertTokenizer::train(&documents, 60).unwrap();
        Self {
            encoded: Arc::new(EncodedReviews::encode(&reviews, &tokenizer, 64).unwrap()),
            ids: reviews.into_iter().map(|review| review.id).collect(),
            vocabulary: MaskingVocabulary::new(tokenizer.vocab()).unwrap(),
        }
    }

    fn loader(&self, seed: u64, tokens_per_batch: usize, window: usize) -> PretrainingLoader {
        let packing = Packing { seed, tokens_per_batch, window };
        self.over((0..self.ids.len()).filter(|index| index % 5 != 0).collect(), packing).unwrap()
    }

    fn over(&self, indices: Vec<usize>, packing: Packing) -> Result<PretrainingLoader, DataError> {
        let (ids, encoded) = (Arc::clone(&self.ids), Arc::clone(&self.encoded));
        PretrainingLoader::new(ids, encoded, indices, self.vocabulary.clone(), 0.15, packing)
    }
}

fn epoch(loader: &PretrainingLoader, epoch: usize) -> Vec<PretrainingBatch> {
    (0..loader.num_batches(epoch)).map(|index| loader.batch(epoch, index)).collect()
}

/// A review, its tokens as they are shown, and what is to be predicted where in it.
type Mask = (usize, Vec<u32>, Vec<(u32, u32)>);

/// The masks of an epoch, by review: whatever the batches were.
fn masks(batches: &[PretrainingBatch]) -> Vec<Mask> {
    let mut masks = Vec::new();
    for batch in batches {
        let mut first = 0;
        for (&review, &length) in batch.reviews.iter().zip(&batch.lengths) {
            let rows = first as u32..(first + length) as u32;
            let predicted = batch.masked_rows.iter().zip(&batch.masked_labels);
            let predicted = predicted.filter(|(row, _)| rows.contains(row));
            masks.push((
                review,
                batch.input_ids[first..first + length].to_vec(),
                predicted.map(|(&row, &label)| (row - rows.start, label)).collect(),
            ));
            first += length;
        }
        assert_eq!(first, batch.input_ids.len());
        assert!(batch.masked_rows.windows(2).all(|pair| pair[0] < pair[1]));
        assert_eq!(batch.masked_rows.len(), batch.masked_labels.len());
    }
    masks.sort_unstable();
    masks
}

#[test]
fn an_epoch_holds_every_review_once_within_the_budget() {
    let loaders = Loaders::new();
    for window in [0, 8] {
        let loader = loaders.loader(1, 256, window);
        for number in [0, 1] {
            let batches = epoch(&loader, number);
            assert!(batches.iter().all(|batch| batch.input_ids.len() <= 256));
            assert!(batches.iter().all(|batch| !batch.masked_rows.is_empty()));
            let masks = masks(&batches);
            let seen: Vec<usize> = masks.iter().map(|mask| mask.0).collect();
            // Empty reviews have nothing to predict.
            let expected: Vec<usize> = (0..600)
                .filter(|&index| index % 5 != 0 && loaders.encoded.tokens(index).len() > 2)
                .collect();
            assert_eq!(seen, expected);
            assert_eq!(loader.num_reviews(), expected.len());
            let tokens: usize = batches.iter().map(|batch| batch.input_ids.len()).sum();
            assert_eq!(loader.num_tokens(), tokens);
            for (review, mut shown, predicted) in masks {
                assert!(!predicted.is_empty());
                for (place, label) in predicted {
                    shown[place as usize] = label;
                }
                assert_eq!(shown, loaders.encoded.tokens(review));
            }
        }
    }
}

#[test]
fn any_batch_can_be_asked_for_at_any_time() {
    let loaders = Loaders::new();
    let whole = epoch(&loaders.loader(1, 256, 8), 4);
    let loader = loaders.loader(1, 256, 8);
    for index in (0..whole.len()).rev() {
        let _ = loader.batch(index % 3, 0);
        assert_eq!(loader.batch(4, index), whole[index]);
    }
}

#[test]
fn masks_depend_on_seed_and_epoch_but_not_on_the_batches() {
    let loaders = Loaders::new();
    let loader = loaders.loader(1, 256, 8);
    let first = masks(&epoch(&loader, 0));
    assert_eq!(masks(&epoch(&loaders.loader(1, 1_000, 0), 0)), first);
    for other in [masks(&epoch(&loader, 1)), masks(&epoch(&loaders.loader(2, 256, 8), 0))] {
        assert_eq!(other.len(), first.len());
        let same = first.iter().zip(&other).filter(|(a, b)| a.2 == b.2).count();
        assert!(same * 4 < first.len(), "{same} of {} reviews are masked alike", first.len());
    }
    let order = |number| -> Vec<usize> {
        epoch(&loader, number).into_iter().flat_map(|batch| batch.reviews).collect()
    };
    assert_ne!(order(0), order(1));
}

#[test]
fn a_review_that_no_batch_can_hold_is_refused() {
    let loaders = Loaders::new();
    let packing = Packing { seed: 1, tokens_per_batch: 40, window: 0 };
    let Err(error) = loaders.over((0..600).collect(), packing) else {
        panic!("a batch of 40 tokens held 64")
    };
    let message = error.to_string();
    assert!(message.ends_with("tokens, but a batch at most 40"), "{message}");
    let none = loaders.over(Vec::new(), packing).unwrap();
    assert_eq!((none.num_reviews(), none.num_batches(0)), (0, 0));
}

/// The text without its spaces, put together of its tokens again.
fn joined(tokenizer: &BertTokenizer, ids: &[u32]) -> String {
    let pieces = ids[1..ids.len() - 1].iter().map(|&id| &tokenizer.vocab()[id as usize]);
    pieces.map(|piece| piece.strip_prefix("##").unwrap_or(piece)).collect()
}

#[test]
fn a_vocabulary_keeps_hangul_composed() {
    let reviews = sample();
    let documents: Vec<&str> = reviews.iter().map(|review| review.document.as_str()).collect();
    let tokenizer = BertTokenizer::train(&documents, 200).unwrap();
    let characters: HashSet<char> = documents.iter().flat_map(|text| text.chars()).collect();
    for entry in &tokenizer.vocab()[5..] {
        let entry = entry.strip_prefix("##").unwrap_or(entry);
        assert!(entry.chars().all(|character| characters.contains(&character)), "{entry}");
    }
    for (document, encoding) in documents.iter().zip(tokenizer.encode(&documents, 512).unwrap()) {
        assert_eq!(joined(&tokenizer, &encoding.input_ids), document.replace(' ', ""));
    }
}

fn mirror(file: &str) -> PathBuf {
    let mirror = std::env::var_os("NSMC_MIRROR").expect("NSMC_MIRROR names a mirror");
    PathBuf::from(mirror).join("nsmc").join(file)
}

fn nsmc(file: &str) -> Vec<Review> {
    let format = Format {
        id_column: Some("id".into()),
        text_column: "document".into(),
        label_column: "label".into(),
        labels: vec!["0".into(), "1".into()],
        delimiter: b'\t',
        quoting: false,
    };
    read_reviews(&mirror(file), &format).unwrap()
}

#[test]
#[ignore = "needs NSMC: set NSMC_MIRROR and run with --ignored"]
fn the_corpus_is_the_documented_one_and_fills_batches() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("corpus.txt");
    let archive = mirror("nsmc-cc0670e872d4ac27bfe36c87456783004b39ef6c.tar.gz");
    let test = nsmc("ratings_test.txt");
    let started = Instant::now();
    let summary = build_corpus(&archive, &test, &out).unwrap();
    println!("{summary:#?} built in {:.1?}", started.elapsed());
    assert_eq!((summary.files, summary.found), (14_730, 712_404));
    assert_eq!((summary.reviews, summary.characters), (639_270, 23_191_935));
    assert_eq!(summary.sha256, "d8efd51fb27659cb95fd529ca9c8664b8e07a8ef313a551a2a0c256e88f3a380");

    let started = Instant::now();
    let corpus = read_corpus(&out).unwrap();
    println!("read in {:.1?}", started.elapsed());
    assert_eq!(corpus.len(), 639_270);
    let test_ids: HashSet<&str> = test.iter().map(|review| review.id.as_str()).collect();
    assert!(!corpus.iter().any(|review| test_ids.contains(review.id.as_str())));

    let train = nsmc("ratings_train.txt");
    let chosen = split(&train, None, 0.1).unwrap().validation;
    let validation: HashSet<&str> = chosen.iter().map(|&index| train[index].id.as_str()).collect();
    let outside: Vec<_> =
        corpus.iter().filter(|review| !validation.contains(review.id.as_str())).collect();
    println!("{} reviews outside of the validation split", outside.len());
    assert!(outside.len() > 620_000 && outside.len() < corpus.len());

    let held_out = hold_out(&corpus, 0.005);
    println!("{} held out", held_out.validation.len());
    assert!((2_970..3_430).contains(&held_out.validation.len()));

    // A tenth of the corpus, and a vocabulary of it.
    let part: Vec<Review> = corpus.into_iter().step_by(10).map(Review::from).collect();
    let documents: Vec<&str> = part.iter().map(|review| review.document.as_str()).collect();
    let started = Instant::now();
    let tokenizer = BertTokenizer::train(&documents, 8_000).unwrap();
    println!("vocabulary of {} trained in {:.1?}", documents.len(), started.elapsed());
    assert_eq!(BertTokenizer::train(&documents, 8_000).unwrap().vocab(), tokenizer.vocab());
    let characters: HashSet<char> = documents.iter().flat_map(|text| text.chars()).collect();
    for entry in &tokenizer.vocab()[5..] {
        let entry = entry.strip_prefix("##").unwrap_or(entry);
        assert!(entry.chars().all(|character| characters.contains(&character)), "{entry}");
    }

    let encoded = Arc::new(EncodedReviews::encode(&part, &tokenizer, 128).unwrap());
    let ids: Arc<[String]> = part.iter().map(|review| review.id.clone()).collect();
    let vocabulary = MaskingVocabulary::new(tokenizer.vocab()).unwrap();
    let packing = Packing { seed: 1, tokens_per_batch: 4_096, window: 64 };
    let loader = PretrainingLoader::new(
        ids,
        Arc::clone(&encoded),
        (0..part.len()).collect(),
        vocabulary.clone(),
        0.15,
        packing,
    )
    .unwrap();
    let started = Instant::now();
    let batches = loader.num_batches(0);
    println!("{batches} batches planned in {:.1?}", started.elapsed());
    let started = Instant::now();
    let (mut tokens, mut reviews, mut masked, mut padded) = (0, 0, 0, 0);
    for batch in epoch(&loader, 0) {
        tokens += batch.input_ids.len();
        reviews += batch.lengths.len();
        masked += batch.masked_rows.len();
        padded += batch.lengths.len() * batch.lengths.iter().max().unwrap();
    }
    println!("{batches} batches filled in {:.1?}", started.elapsed());
    let share = masked as f64 / (tokens - 2 * reviews) as f64;
    println!(
        "{:.1} tokens a review, {:.4} of them masked, padded {:.3}",
        tokens as f64 / reviews as f64,
        share,
        padded as f64 / tokens as f64
    );
    assert_eq!((tokens, reviews), (loader.num_tokens(), loader.num_reviews()));
    // Above 0.15, because one word of a review of three is a third.
    assert!((0.15..0.19).contains(&share), "{share}");
    assert!((padded as f64) < 1.05 * tokens as f64, "{padded}");
    assert!(tokens as f64 / batches as f64 > 4_096.0 * 0.98);

    // Words of any length are hidden about as often.
    let mut counts = [[0_u32; 2]; 9];
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    for review in 0..part.len() {
        let tokens = encoded.tokens(review);
        let starts = vocabulary.starts(tokens);
        let masked = mask(tokens, &starts, &vocabulary, 0.15, &mut rng);
        let positions: HashSet<u32> = masked.positions.into_iter().collect();
        let mut place = 1;
        while place < tokens.len() - 1 {
            let end = (place + 1..tokens.len()).find(|&next| starts[next]).unwrap();
            let [all, hidden] = &mut counts[(end - place).min(8)];
            *all += 1;
            *hidden += u32::from(positions.contains(&(place as u32)));
            place = end;
        }
    }
    for (length, [all, hidden]) in counts.into_iter().enumerate().skip(1) {
        println!("{length} tokens: {:.4} of {all} words", f64::from(hidden) / f64::from(all));
    }
}
