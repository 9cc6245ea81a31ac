//! Korean particles, whose form depends on whether the word before them ends in a consonant.

/// A particle in its two forms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Particle {
    /// 은, 는: the topic.
    Topic,
    /// 이, 가: the subject.
    Subject,
    /// 을, 를: the object.
    Object,
    /// 과, 와: and.
    And,
}

/// The word with the particle behind it.
pub(crate) fn with_particle(word: &str, particle: Particle) -> String {
    let (after_consonant, after_vowel) = match particle {
        Particle::Topic => ("은", "는"),
        Particle::Subject => ("이", "가"),
        Particle::Object => ("을", "를"),
        Particle::And => ("과", "와"),
    };
    let form = if ends_in_consonant(word) { after_consonant } else { after_vowel };
    format!("{word}{form}")
}

/// Whether the last syllable has a final consonant, as the word is read in Korean. What stands in
/// brackets behind a word is not read.
fn ends_in_consonant(word: &str) -> bool {
    let read = without_brackets(word);
    let Some(last) = read.chars().rev().find(|character| character.is_alphanumeric()) else {
        return false;
    };
    match last {
        '가'..='힣' => (u32::from(last) - u32::from('가')) % 28 != 0,
        // 영, 일, 삼, 육, 칠, 팔, and 십, 백, 천, 만; not 이, 사, 오, 구.
        '0'..='9' => matches!(last, '0' | '1' | '3' | '6' | '7' | '8'),
        _ => latin_ends_in_consonant(read),
    }
}

fn without_brackets(word: &str) -> &str {
    let word = word.trim_end();
    match (word.strip_suffix(')'), word.rfind('(')) {
        (Some(_), Some(start)) if start > 0 => without_brackets(&word[..start]),
        _ => word,
    }
}

/// Of a name in Latin letters. A transcription ends in a consonant after l, m, n and ng, with or
/// without a mute e; after others it gets a vowel of its own (method is 메서드).
fn latin_ends_in_consonant(word: &str) -> bool {
    let parts = word.split(|character: char| !character.is_ascii_alphabetic());
    let name = parts.rev().find(|part| !part.is_empty()).unwrap_or_default();
    if name.len() == 1 || name.chars().all(|character| character.is_ascii_uppercase()) {
        // Spelt out: 엘, 엠, 엔, 알.
        return name.ends_with(['L', 'M', 'N', 'R', 'l', 'm', 'n', 'r']);
    }
    let name = name.to_ascii_lowercase();
    // 드롭아웃, 톱: a short vowel keeps its t or p.
    if name.ends_with("out") || name.ends_with("top") {
        return true;
    }
    let stem = name.strip_suffix('e').unwrap_or(&name);
    stem.ends_with(['l', 'm', 'n']) || name.ends_with("ng")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_particle_goes_by_the_last_syllable_as_it_is_read() {
        for (word, expected) in [
            ("학습률", "학습률은"),
            ("정확도", "정확도는"),
            ("LoRA 외에 학습되는 부분", "LoRA 외에 학습되는 부분은"),
            // 로라, 바닐라, 어댑터퓨전, 알파, 헤드, 버트.
            ("LoRA", "LoRA는"),
            ("Vanilla", "Vanilla는"),
            ("AdapterFusion", "AdapterFusion은"),
            ("alpha", "alpha는"),
            ("head", "head는"),
            ("BERT", "BERT는"),
            ("method", "method는"),
            // 모델, 파인, 테이블, 트레이닝, 드롭아웃.
            ("model", "model은"),
            ("fine", "fine은"),
            ("table", "table은"),
            ("training", "training은"),
            ("dropout", "dropout은"),
            ("learning_rate", "learning_rate는"),
            // 엘, 알, 에프.
            ("URL", "URL은"),
            ("r", "r은"),
            ("TF-IDF", "TF-IDF는"),
            // 십육, 삼십이, 육십사, 백이십팔, 십.
            ("LoRA r=16", "LoRA r=16은"),
            ("LoRA r=32", "LoRA r=32는"),
            ("LoRA r=64", "LoRA r=64는"),
            ("LoRA r=128", "LoRA r=128은"),
            ("10", "10은"),
        ] {
            assert_eq!(with_particle(word, Particle::Topic), expected);
        }
    }

    #[test]
    fn what_stands_in_brackets_is_not_read() {
        let of = |word: &str| with_particle(word, Particle::Subject);
        assert_eq!(of("전체 미세조정(Vanilla)"), "전체 미세조정(Vanilla)이");
        assert_eq!(of("AdapterFusion (alpha 1)"), "AdapterFusion (alpha 1)이");
        assert_eq!(of("(Vanilla)"), "(Vanilla)가");
        assert_eq!(of("alpha(1 → 128)"), "alpha(1 → 128)가");
    }

    #[test]
    fn each_particle_has_both_forms() {
        for (particle, after_consonant, after_vowel) in [
            (Particle::Topic, "은", "는"),
            (Particle::Subject, "이", "가"),
            (Particle::Object, "을", "를"),
            (Particle::And, "과", "와"),
        ] {
            assert_eq!(with_particle("값", particle), format!("값{after_consonant}"));
            assert_eq!(with_particle("수", particle), format!("수{after_vowel}"));
        }
        assert_eq!(with_particle("", Particle::Topic), "는", "nothing to go by");
    }
}
