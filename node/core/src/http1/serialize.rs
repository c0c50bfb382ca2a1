//! Heads back to bytes.

use super::head::{Field, Head, Span};

impl Head {
    /// Appends the head as it is now, ready to be sent: start line, header lines, empty line. Requests are written in
    /// origin form (`CONNECT` and `*` excepted) with their own version; responses always say HTTP/1.1, the version of
    /// the proxy. Call `prepare_…` first; writing twice gives the same bytes twice, which is what a retry needs.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.reserve(self.bytes.len() + 64);
        if self.is_response {
            let status = self.status;
            let digit = |n: u16| b'0' + (n % 10) as u8;
            out.extend_from_slice(b"HTTP/1.1 ");
            out.extend_from_slice(&[digit(status / 100), digit(status / 10), digit(status), b' ']);
            out.extend_from_slice(self.reason());
            out.extend_from_slice(b"\r\n");
        } else {
            out.extend_from_slice(self.method());
            out.push(b' ');
            out.extend_from_slice(self.origin.of(&self.bytes));
            out.extend_from_slice(match self.version {
                super::Version::Http11 => b" HTTP/1.1\r\n",
                super::Version::Http10 => b" HTTP/1.0\r\n",
            });
        }
        self.write_fields(out);
        out.extend_from_slice(b"\r\n");
    }

    /// Header lines: neighbours in memory that are `name: value CR LF` already are copied in one go.
    fn write_fields(&self, out: &mut Vec<u8>) {
        let mut run = Span::default();
        for field in &self.fields {
            let line_len = u32::from(field.name_len) + 2 + field.value_len + 2;
            if !field.has(Field::CANONICAL) {
                out.extend_from_slice(run.of(&self.bytes));
                run = Span::default();
                out.extend_from_slice(field.name(&self.bytes));
                out.extend_from_slice(b": ");
                out.extend_from_slice(field.value(&self.bytes));
                out.extend_from_slice(b"\r\n");
            } else if run.off + run.len == field.name_off {
                run.len += line_len;
            } else {
                out.extend_from_slice(run.of(&self.bytes));
                run = Span {
                    off: field.name_off,
                    len: line_len,
                };
            }
        }
        out.extend_from_slice(run.of(&self.bytes));
    }
}
