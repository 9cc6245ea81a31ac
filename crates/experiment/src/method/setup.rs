/// The adapters that a setup names, in their order, or what is wrong with how it is written.
///
/// What can be written is what a model can be given (`peft::Composition`), and is checked here, too,
/// so that a mistake is told before anything is fetched for the run.
pub fn setup_names(setup: &str) -> Result<Vec<&str>, String> {
    let mut names = Vec::new();
    let mistake = match block(setup, &[], &mut names) {
        Ok("") => return Ok(names),
        Ok(rest) => format!("`{rest}` stands behind its end"),
        Err(mistake) => mistake,
    };
    Err(format!(
        "expected adapters as AdapterHub writes them, for instance \"Fuse(ko, nsmc)\", found \
         \"{setup}\": {mistake}"
    ))
}

/// Reads one block of `text`, which lies in the blocks `outer`, and gives what stands behind it.
fn block<'a>(
    text: &'a str,
    outer: &[&'a str],
    names: &mut Vec<&'a str>,
) -> Result<&'a str, String> {
    let end = text.find(['(', ')', ',']).unwrap_or(text.len());
    let (name, rest) = (text[..end].trim(), &text[end..]);
    let Some(mut rest) = rest.strip_prefix('(') else {
        if name.is_empty() {
            return Err("an adapter's name is missing".into());
        }
        if !name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-')) {
            return Err(format!(
                "`{name}` is no adapter's name, which has letters, digits, `_` and `-`; where its \
                 weights come from is said in [method.sources.NAME]"
            ));
        }
        names.push(name);
        return Ok(rest);
    };
    if !matches!(name, "Stack" | "Fuse") {
        return Err(format!("`{name}(` is not known, `Stack(` and `Fuse(` are"));
    }
    if outer.last() == Some(&name) {
        return Err(format!("a `{name}` within a `{name}` is not possible"));
    }
    if name == "Fuse" && outer.len() > 1 {
        return Err("a `Fuse` is possible by itself or in a `Stack` of its own".into());
    }
    let outer = [outer, &[name]].concat();
    loop {
        let after = block(rest, &outer, names)?;
        if let Some(after) = after.strip_prefix(')') {
            return Ok(after.trim());
        }
        rest = after.strip_prefix(',').ok_or("a `)` is missing")?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setup_names_its_adapters_in_their_order() {
        for (setup, expected) in [
            ("nsmc", ["nsmc"].as_slice()),
            (" Fuse( ko,nsmc ) ", &["ko", "nsmc"]),
            ("Stack(ko, Fuse(Stack(x, a-1), 나_2), b)", &["ko", "x", "a-1", "나_2", "b"]),
        ] {
            assert_eq!(setup_names(setup).as_deref(), Ok(expected), "{setup}");
        }
    }

    #[test]
    fn of_a_setup_that_cannot_be_the_mistake_is_told() {
        for (setup, expected) in [
            ("[ko/wiki@ukp, nsmc]", "`[ko/wiki@ukp` is no adapter's name"),
            ("Fuse(ko/wiki@ukp, nsmc)", "`ko/wiki@ukp` is no adapter's name"),
            ("ko, nsmc", "`, nsmc` stands behind its end"),
            ("Fuse(ko, nsmc", "a `)` is missing"),
            ("Fuse(ko, nsmc))", "`)` stands behind its end"),
            ("Fuse(ko, )", "an adapter's name is missing"),
            ("", "an adapter's name is missing"),
            ("fuse(ko, nsmc)", "`fuse(` is not known, `Stack(` and `Fuse(` are"),
            ("Stack(Stack(a, b), c)", "a `Stack` within a `Stack` is not possible"),
            ("Fuse(a, Fuse(b, c))", "a `Fuse` within a `Fuse` is not possible"),
            ("Fuse(Stack(c, Fuse(a, b)), a)", "a `Fuse` is possible by itself or"),
        ] {
            let message = setup_names(setup).unwrap_err();
            let (_, found) = message.split_once(&format!("found \"{setup}\": ")).unwrap();
            assert!(found.starts_with(expected), "{setup}: {message}");
        }
        let deep = "Stack(a, Fuse(b, ".repeat(100_000);
        assert!(setup_names(&deep).is_err(), "it ends");
    }
}
