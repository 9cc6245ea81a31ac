//! Tokenizers, from `tokenizer.json` or from `vocab.txt` and `tokenizer_config.json`: no text gives
//! an id that is not of the vocabulary or more tokens than were asked for, and what is saved is the
//! same tokenizer.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nsmc_data::BertTokenizer;
use nsmc_fuzz::{place, split, write};

fuzz_target!(|input: &[u8]| {
    let [first, second, text] = split(input);
    let folder = place().empty();
    if first.starts_with(b"{") {
        write(&folder.join("tokenizer.json"), first);
    } else {
        write(&folder.join("vocab.txt"), first);
        write(&folder.join("tokenizer_config.json"), second);
    }
    let Ok(tokenizer) = BertTokenizer::from_pretrained(&folder) else { return };
    let text = String::from_utf8_lossy(text);
    let texts = [&*text, "", "좋은 영화!"];
    let Ok(expected) = tokenizer.encode(&texts, 16) else { return };
    for encoding in &expected {
        assert!(encoding.input_ids.len() <= 16);
        assert_eq!(encoding.input_ids.len(), encoding.token_type_ids.len());
        assert!(encoding.input_ids.iter().all(|&id| (id as usize) < tokenizer.vocab_size()));
    }
    let _ = tokenizer.encode_pair(&text, "좋은 영화!", 16);
    let saved = folder.join("saved");
    tokenizer.save(&saved, 128).expect("a tokenizer can be saved");
    let back = BertTokenizer::from_json(&saved.join("tokenizer.json")).expect("saved is read");
    assert_eq!(back.fingerprint(), tokenizer.fingerprint());
    assert_eq!(back.encode(&texts, 16).expect("the same tokenizer"), expected);
    place().assert_contained();
});
