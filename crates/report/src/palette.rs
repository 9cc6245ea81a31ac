//! Colours, told apart by colour-blind eyes (Okabe and Ito, 2008, "Color Universal Design"), in a
//! light and a dark rendering.
//!
//! plotters knows fixed colours alone. Each stands for a CSS variable, and takes its place in the SVG
//! ([`with_variables`]), so that one rendering serves both schemes.

use plotters::style::RGBColor;

/// A colour: its CSS variable and what it is in the light and in the dark scheme.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Colour {
    variable: &'static str,
    light: RGBColor,
    dark: RGBColor,
}

const fn colour(variable: &'static str, light: u32, dark: u32) -> Colour {
    Colour { variable, light: rgb(light), dark: rgb(dark) }
}

const fn rgb(hex: u32) -> RGBColor {
    RGBColor((hex >> 16) as u8, (hex >> 8) as u8, hex as u8)
}

pub(crate) const PAPER: Colour = colour("paper", 0x00FF_FFFE, 0x0016_171A);
pub(crate) const INK: Colour = colour("ink", 0x001B_1B1F, 0x00E4_E4E2);
pub(crate) const MUTED: Colour = colour("muted", 0x005E_5E63, 0x00A4_A4A2);
pub(crate) const RULE: Colour = colour("rule", 0x00DD_DDD9, 0x003A_3B40);
pub(crate) const VANILLA: Colour = colour("vanilla", 0x0000_72B2, 0x0056_B4E9);
pub(crate) const FUSION: Colour = colour("fusion", 0x00D5_5E00, 0x00F2_8A45);
pub(crate) const LORA: Colour = colour("lora", 0x0000_8A64, 0x002F_C798);
pub(crate) const LORA_SECOND: Colour = colour("lora-second", 0x00A8_4A80, 0x00E0_9AC4);
pub(crate) const LORA_THIRD: Colour = colour("lora-third", 0x009A_6F00, 0x00E6_BC3C);
pub(crate) const OTHER: Colour = colour("other", 0x005A_4FCF, 0x00A9_A2FF);
pub(crate) const ADAPTER: Colour = colour("adapter", 0x006B_3A12, 0x00C6_9C7A);

/// Those of methods.
pub(crate) const SERIES: [Colour; 7] =
    [VANILLA, FUSION, LORA, LORA_SECOND, LORA_THIRD, OTHER, ADAPTER];

const GROUND: [Colour; 4] = [PAPER, INK, MUTED, RULE];

fn all() -> impl Iterator<Item = Colour> {
    GROUND.into_iter().chain(SERIES)
}

impl Colour {
    /// As plotters draws it.
    pub(crate) fn rgb(self) -> RGBColor {
        self.light
    }

    /// As CSS names it.
    pub(crate) fn css(self) -> String {
        format!("var(--{})", self.variable)
    }
}

/// Puts CSS variables in the place of the colours that plotters drew; a viewer that knows no
/// variables shows the light scheme.
pub(crate) fn with_variables(svg: &str) -> String {
    all().fold(svg.to_owned(), |svg, colour| {
        let hex = hex(colour.light);
        svg.replace(&format!("\"{hex}\""), &format!("\"var(--{}, {hex})\"", colour.variable))
    })
}

/// The style sheet that gives the variables their values.
pub(crate) fn style_sheet() -> String {
    let scheme = |value: fn(&Colour) -> RGBColor| {
        let values = all().map(|colour| format!("--{}:{};", colour.variable, hex(value(&colour))));
        values.collect::<String>()
    };
    let (light, dark) = (scheme(|colour| colour.light), scheme(|colour| colour.dark));
    format!(
        ":root{{color-scheme:light dark;{light}}}\
         @media (prefers-color-scheme:dark){{@media not print{{:root{{{dark}}}}}}}"
    )
}

fn hex(RGBColor(red, green, blue): RGBColor) -> String {
    format!("#{red:02X}{green:02X}{blue:02X}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Relative luminance, WCAG 2.2.
    fn luminance(RGBColor(red, green, blue): RGBColor) -> f64 {
        let linear = |channel: u8| {
            let share = f64::from(channel) / 255.0;
            if share <= 0.04045 { share / 12.92 } else { ((share + 0.055) / 1.055).powf(2.4) }
        };
        0.2126 * linear(red) + 0.7152 * linear(green) + 0.0722 * linear(blue)
    }

    fn contrast(a: RGBColor, b: RGBColor) -> f64 {
        let (a, b) = (luminance(a), luminance(b));
        (a.max(b) + 0.05) / (a.min(b) + 0.05)
    }

    #[test]
    fn text_and_marks_are_legible_in_both_schemes() {
        for colour in [INK, MUTED] {
            assert!(contrast(colour.light, PAPER.light) > 4.5, "{colour:?}");
            assert!(contrast(colour.dark, PAPER.dark) > 4.5, "{colour:?}");
        }
        for colour in SERIES {
            assert!(contrast(colour.light, PAPER.light) > 3.0, "{colour:?}");
            assert!(contrast(colour.dark, PAPER.dark) > 3.0, "{colour:?}");
        }
    }

    #[test]
    fn every_colour_becomes_a_variable() {
        let svg = with_variables("<path stroke=\"#0072B2\" fill=\"#1B1B1F\"/>");
        assert_eq!(svg, "<path stroke=\"var(--vanilla, #0072B2)\" fill=\"var(--ink, #1B1B1F)\"/>");
        assert!(style_sheet().contains("--vanilla:#56B4E9"));
    }
}
