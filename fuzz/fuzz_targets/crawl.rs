//! The raw crawl's archive: nothing is unpacked to disk, and the corpus holds what its summary says.
#![no_main]

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use libfuzzer_sys::fuzz_target;
use nsmc_data::Review;
use nsmc_data::pretraining::{build_corpus, read_corpus};
use nsmc_fuzz::{place, split};

// The input is a gzip file (`g`), a tar archive (`t`), or up to four JSON files in one.
fuzz_target!(|input: &[u8]| {
    let Some((&kind, content)) = input.split_first() else { return };
    let archive = match kind {
        b'g' => content.to_vec(),
        b't' => gzip(content),
        _ => gzip(&tar(&split::<4>(content))),
    };
    let path = place().file("crawl.tar.gz", &archive);
    let out = path.with_file_name("corpus.txt");
    let test = [Review { id: "1".into(), document: "좋다".into(), label: 1 }];
    match build_corpus(&path, &test, &out) {
        Ok(summary) => {
            let left_out = summary.empty + summary.test_ids + summary.test_texts + summary.repeated;
            assert_eq!(left_out + summary.reviews, summary.found);
            if summary.reviews > 0 {
                let corpus = read_corpus(&out).expect("what is written is read");
                assert_eq!(corpus.len(), summary.reviews);
                assert!(corpus.iter().all(|review| review.document != "좋다" && review.id != "1"));
            }
        }
        Err(_) => assert!(!out.exists(), "half a corpus"),
    }
    place().assert_contained();
});

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("memory takes what is written");
    encoder.finish().expect("memory takes what is written")
}

fn tar(files: &[&[u8]]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (index, content) in files.iter().enumerate() {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        let name = format!("nsmc/raw/{index}.json");
        builder.append_data(&mut header, name, *content).expect("memory takes what is written");
    }
    builder.into_inner().expect("memory takes what is written")
}
