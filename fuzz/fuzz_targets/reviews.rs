//! Files of reviews: every field is what stands in the file, by a reader of its own, and what is
//! written is read.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nsmc_data::{Format, Review, read_reviews};
use nsmc_fuzz::place;

fuzz_target!(|input: &[u8]| {
    let Some((&kind, content)) = input.split_first() else { return };
    let format = Format {
        id_column: (kind & 1 == 0).then(|| "id".into()),
        text_column: "document".into(),
        label_column: "label".into(),
        labels: vec!["0".into(), "1".into()],
        delimiter: if kind & 2 == 0 { b'\t' } else { b',' },
        quoting: kind & 4 != 0,
    };
    let path = place().file("reviews", content);
    let Ok(reviews) = read_reviews(&path, &format) else { return };
    let [ids, documents, labels] = columns(content, &format);
    assert_eq!(reviews.len(), documents.len());
    for (index, review) in reviews.iter().enumerate() {
        assert_eq!(review.document, documents[index], "row {index}");
        assert_eq!(review.label.to_string(), labels[index], "row {index}");
        if format.id_column.is_some() {
            assert_eq!(review.id, ids[index], "row {index}");
        }
    }

    let quoted = |field: &str| match format.quoting {
        true => format!("\"{}\"", field.replace('"', "\"\"")),
        false => field.to_owned(),
    };
    let delimiter = char::from(format.delimiter).to_string();
    let mut text = ["id", "document", "label"].join(&delimiter) + "\n";
    for Review { id, document, label } in &reviews {
        let row = [quoted(id), quoted(document), label.to_string()];
        text += &(row.join(&delimiter) + "\n");
    }
    nsmc_fuzz::write(&path, text.as_bytes());
    assert_eq!(read_reviews(&path, &format).expect("what is written is read"), reviews);
});

/// Ids (none without their column), documents and labels, by the `csv` crate or by hand.
fn columns(content: &[u8], format: &Format) -> [Vec<String>; 3] {
    let content = content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content);
    let rows: Vec<Vec<String>> = if format.quoting {
        let mut builder = csv::ReaderBuilder::new();
        builder.has_headers(false).delimiter(format.delimiter);
        let mut reader = builder.from_reader(content);
        let records = reader.records().map(|record| record.expect("it was read before"));
        records.map(|record| record.iter().map(str::to_owned).collect()).collect()
    } else {
        let text = std::str::from_utf8(content).expect("it was read before");
        let lines = text.strip_suffix('\n').unwrap_or(text).split('\n');
        let lines = lines.map(|line| line.strip_suffix('\r').unwrap_or(line));
        let delimiter = char::from(format.delimiter);
        lines.map(|line| line.split(delimiter).map(str::to_owned).collect()).collect()
    };
    ["id", "document", "label"].map(|name| {
        let column = rows[0].iter().position(|column| column == name);
        column.map(|at| rows[1..].iter().map(|row| row[at].clone()).collect()).unwrap_or_default()
    })
}
