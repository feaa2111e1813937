//! Which colour has what?

/// Whether colours are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Color {
    /// Plain text.
    #[default]
    Never,
    /// Escape sequences.
    Always,
}

impl Color {
    /// `auto`: only for terminals that do not decline; anything else as asked.
    pub fn choose(when: &str, terminal: bool, no_color: bool, dumb: bool) -> Self {
        match when.to_lowercase().as_str() {
            "always" => Self::Always,
            "never" => Self::Never,
            _ if terminal && !no_color && !dumb => Self::Always,
            _ => Self::Never,
        }
    }

    pub(super) fn port(self, text: &str) -> String {
        self.paint(33, text)
    }

    pub(super) fn host(self, text: &str) -> String {
        self.paint(36, text)
    }

    pub(super) fn identity(self, text: &str) -> String {
        self.paint(35, text)
    }

    pub(super) fn good(self, text: &str) -> String {
        self.paint(32, text)
    }

    pub(super) fn bad(self, text: &str) -> String {
        self.paint(31, text)
    }

    pub(super) fn notable(self, text: &str) -> String {
        self.paint(33, text)
    }

    fn paint(self, number: u8, text: &str) -> String {
        match self {
            Color::Never => text.to_owned(),
            Color::Always => format!("\x1b[{number}m{text}\x1b[0m"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn automatic_colours_need_a_willing_terminal() {
        assert_eq!(Color::choose("auto", true, false, false), Color::Always);
        assert_eq!(Color::choose("auto", false, false, false), Color::Never);
        assert_eq!(Color::choose("auto", true, true, false), Color::Never);
        assert_eq!(Color::choose("auto", true, false, true), Color::Never);
        assert_eq!(Color::choose("ALWAYS", false, true, true), Color::Always);
        assert_eq!(Color::choose("never", true, false, false), Color::Never);
    }
}
