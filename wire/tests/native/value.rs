//! MessagePack as any writer might send it: in any order, twice, with types that nobody expects.

#[derive(Debug, Clone)]
pub(crate) enum Value {
    Nil,
    Bool(bool),
    Uint(u64),
    Signed(i8),
    Float(f64),
    Str(String),
    Bin(Vec<u8>),
    Ext(i8, Vec<u8>),
    Array(Vec<Value>),
    Map(Vec<(&'static str, Value)>),
    /// Octets as they are.
    Raw(Vec<u8>),
}

impl Value {
    pub(crate) fn octets(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out);
        out
    }

    /// The value, without what is large in it.
    pub(crate) fn clone_small(&self) -> Value {
        match self {
            Value::Bin(octets) if octets.len() > 1000 => Value::Bin(Vec::new()),
            Value::Map(fields) => {
                Value::Map(fields.iter().map(|(name, value)| (*name, value.clone_small())).collect())
            }
            other => other.clone(),
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Value::Nil => out.push(0xc0),
            Value::Bool(value) => out.push(0xc2 + u8::from(*value)),
            Value::Uint(value) => uint(*value, out),
            Value::Signed(value) => out.extend([0xd0, value.to_be_bytes()[0]]),
            Value::Float(value) => {
                out.push(0xcb);
                out.extend(value.to_be_bytes());
            }
            Value::Str(text) => {
                head(text.len(), 0xa0, 31, &[0xd9, 0xda, 0xdb], out);
                out.extend(text.as_bytes());
            }
            Value::Bin(octets) => {
                head(octets.len(), 0, -1, &[0xc4, 0xc5, 0xc6], out);
                out.extend(octets);
            }
            Value::Ext(kind, octets) => {
                head(octets.len(), 0, -1, &[0xc7, 0xc8, 0xc9], out);
                out.extend(kind.to_be_bytes());
                out.extend(octets);
            }
            Value::Array(values) => {
                head(values.len(), 0x90, 15, &[0, 0xdc, 0xdd], out);
                values.iter().for_each(|value| value.write(out));
            }
            Value::Map(fields) => {
                head(fields.len(), 0x80, 15, &[0, 0xde, 0xdf], out);
                for (name, value) in fields {
                    Value::Str((*name).to_owned()).write(out);
                    value.write(out);
                }
            }
            Value::Raw(octets) => out.extend(octets),
        }
    }
}

fn uint(value: u64, out: &mut Vec<u8>) {
    if let (Ok(small), true) = (u8::try_from(value), value < 128) {
        out.push(small);
    } else if let Ok(value) = u8::try_from(value) {
        out.extend([0xcc, value]);
    } else if let Ok(value) = u16::try_from(value) {
        out.push(0xcd);
        out.extend(value.to_be_bytes());
    } else if let Ok(value) = u32::try_from(value) {
        out.push(0xce);
        out.extend(value.to_be_bytes());
    } else {
        out.push(0xcf);
        out.extend(value.to_be_bytes());
    }
}

/// The head of something that has a length, in its shortest form. `codes`: of 8, 16 and 32 bits; 0 is none.
fn head(len: usize, fix: u8, fix_max: i32, codes: &[u8; 3], out: &mut Vec<u8>) {
    let small = u8::try_from(len);
    match (small, u16::try_from(len)) {
        (Ok(len), _) if i32::from(len) <= fix_max => out.push(fix | len),
        (Ok(len), _) if codes[0] != 0 => out.extend([codes[0], len]),
        (_, Ok(len)) => {
            out.push(codes[1]);
            out.extend(len.to_be_bytes());
        }
        _ => {
            out.push(codes[2]);
            out.extend(u32::try_from(len).unwrap().to_be_bytes());
        }
    }
}
