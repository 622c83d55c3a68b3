//! Statements: what libmemcached's grammar lets follow what. Each is carried out as soon as it is read.

use std::io;

use super::error::{At, ConfigError, Place, meant, option_at, shown};
use super::files::{self, MAX_DEPTH, MAX_FILES, MAX_LINE};
use super::lexer::{DistributionName, HashName, Keyword, Lexeme, Lexer, Token};
use super::memory::{ConfigureFile, Memory};
use super::options::{self, Kind, Known};
use super::server::DEFAULT_PORT;
use super::{Config, Server};
use crate::selection::{Distribution, KeyHash, Ring};

/// The longest name of a host or a socket, and the longest namespace, that libmemcached takes.
const MAX_NAME: usize = 1024;
const MAX_NAMESPACE: usize = 127;

type Read<'r> = &'r mut dyn FnMut(&str) -> io::Result<Vec<u8>>;

pub(super) fn configuration(text: &str, read: Read<'_>) -> Result<Config, ConfigError> {
    if text.is_empty() {
        return Err(ConfigError::Empty);
    }
    let mut memory = Memory::default();
    let mut files = Files { read, left: MAX_FILES };
    Parser::new(text, None, 0).run(&mut memory, &mut files)?;
    // What that file says of another one comes too late.
    if let Some(ConfigureFile { path, at }) = memory.configure_file.take() {
        files.take_in(&path, &at, 0, &mut memory)?;
    }
    Ok(memory.config)
}

struct Files<'r> {
    read: Read<'r>,
    left: usize,
}

impl Files<'_> {
    fn take_in(&mut self, path: &str, at: &At, depth: usize, memory: &mut Memory) -> Result<(), ConfigError> {
        if depth == MAX_DEPTH || self.left == 0 {
            let expected = format!("at most {MAX_FILES} files, {MAX_DEPTH} deep");
            return Err(at.wrong("too many files name files", &expected));
        }
        self.left -= 1;
        let octets = (self.read)(path).map_err(|error| {
            at.wrong(&format!("cannot be read: {error}"), "a readable file of at most 1 MiB")
        })?;
        let mut any = false;
        for (number, line) in files::lines(&octets) {
            any = true;
            let text = match std::str::from_utf8(line) {
                Ok(text) if line.len() <= MAX_LINE => text,
                Ok(_) => {
                    let wrong = format!("line {number} has more than {MAX_LINE} octets");
                    return Err(at.wrong(&wrong, "shorter lines, which libmemcached reads in one piece"));
                }
                // A comment may be in another charset.
                Err(_) if line.starts_with(b"#") && line.ends_with(b"\n") => continue,
                Err(error) => {
                    let wrong = format!("line {number}: no UTF-8 at octet {}", error.valid_up_to());
                    return Err(at.wrong(&wrong, "options in UTF-8"));
                }
            };
            Parser::new(text, Some((path, number)), depth + 1).run(memory, self)?;
        }
        match any {
            true => Ok(()),
            false => Err(at.wrong("nothing is in the file", "at least one option")),
        }
    }
}

/// One string, or one line of a file: libmemcached reads each line as a configuration of its own, into the same
/// memory.
struct Parser<'t> {
    text: &'t str,
    lexer: Lexer<'t>,
    peeked: Option<Option<Lexeme<'t>>>,
    file: Option<(&'t str, usize)>,
    depth: usize,
    /// Where the statement begins that is being read.
    statement: usize,
    hash_named: bool,
}

impl<'t> Parser<'t> {
    fn new(text: &'t str, file: Option<(&'t str, usize)>, depth: usize) -> Parser<'t> {
        let lexer = Lexer::new(text);
        Parser { text, lexer, peeked: None, file, depth, statement: 0, hash_named: false }
    }

    fn peek(&mut self) -> Option<Lexeme<'t>> {
        let lexer = &mut self.lexer;
        *self.peeked.get_or_insert_with(|| lexer.next())
    }

    fn next(&mut self) -> Option<Lexeme<'t>> {
        let next = self.peek();
        self.peeked = None;
        next
    }

    fn run(mut self, memory: &mut Memory, files: &mut Files<'_>) -> Result<(), ConfigError> {
        loop {
            self.statement = self.peek().map_or(self.text.len(), |first| first.start);
            if let Some(Keyword::End) = self.statement(memory, files)? {
                // Whatever comes now, libmemcached does not look at it.
                return Ok(());
            }
            match self.next() {
                None => return Ok(()),
                Some(Lexeme { token: Token::Space, .. }) => {}
                Some(lexeme) => {
                    return Err(self.unexpected(Some(lexeme), "exactly one space, then the next option"));
                }
            }
        }
    }

    fn statement(
        &mut self,
        memory: &mut Memory,
        files: &mut Files<'_>,
    ) -> Result<Option<Keyword>, ConfigError> {
        let first = self.next();
        match first.map(|first| first.token) {
            Some(Token::Option(known)) => self.option(known, memory)?,
            Some(Token::Comment) => {}
            Some(Token::Keyword(Keyword::End)) => return Ok(Some(Keyword::End)),
            Some(Token::Keyword(Keyword::Reset)) => *memory = Memory::default(),
            Some(Token::Keyword(Keyword::Debug)) => memory.ignore("DEBUG", String::new()),
            Some(Token::Keyword(Keyword::Include)) => {
                let expected = "INCLUDE \"/path\"";
                match self.next() {
                    Some(Lexeme { token: Token::Space, .. }) => {}
                    other => return Err(self.unexpected(other, expected)),
                }
                let path = self.string(expected)?;
                files.take_in(path, &self.at(), self.depth, memory)?;
            }
            Some(Token::Space) => {
                return Err(self.wrong(
                    "a space in front of an option",
                    "no spaces in front and exactly one between options",
                ));
            }
            None => return Err(self.wrong("nothing is there", "an option, or no space at the end")),
            Some(_) => {
                let found = option_at(self.text, self.statement);
                return Err(self.wrong("libmemcached has no such option", &meant(found)));
            }
        }
        Ok(None)
    }

    fn option(&mut self, known: &'static Known, memory: &mut Memory) -> Result<(), ConfigError> {
        let syntax = known.syntax();
        match known.kind {
            Kind::Server => self.server(memory)?,
            Kind::Socket => {
                let path = self.name(&syntax)?;
                let weight = self.weight();
                memory.add(Server::Socket { path, weight });
            }
            Kind::Namespace => self.namespace(memory, &syntax)?,
            Kind::Hash => {
                let hash = self.hash()?;
                if std::mem::replace(&mut self.hash_named, true) {
                    return Err(self.wrong("a second --HASH", "one"));
                }
                memory.config.hash = hash;
            }
            Kind::Distribution => {
                let distribution = match self.next() {
                    Some(Lexeme { token: Token::Distribution(name), .. }) => distribution(name),
                    other => return Err(self.unexpected(other, &syntax)),
                };
                let hash = match self.peek() {
                    Some(Lexeme { token: Token::Comma, .. }) => {
                        self.next();
                        Some(self.hash()?)
                    }
                    _ => None,
                };
                memory.distribute(distribution, hash);
            }
            Kind::ConfigureFile => {
                let path = self.string(&syntax)?;
                if path.is_empty() {
                    return Err(self.wrong("no name", &syntax));
                }
                memory.configure_file = Some(ConfigureFile { path: path.to_owned(), at: self.at() });
            }
            Kind::Number(number) => match self.next() {
                Some(Lexeme { token: Token::Number(value), .. }) => {
                    memory.set_number(known.name, number, value);
                }
                other => return Err(self.unexpected(other, &syntax)),
            },
            Kind::Flag(flag) => {
                if let Err(other) = memory.set_flag(known.name, flag) {
                    return Err(self.wrong(
                        &format!("libmemcached refuses it behind {other}"),
                        &format!("one of the two, or {} first", known.name),
                    ));
                }
            }
        }
        Ok(())
    }

    fn server(&mut self, memory: &mut Memory) -> Result<(), ConfigError> {
        let expected = "an IPv4 address, an IPv6 address in brackets, or a host name of 3 to 1024 letters, digits, '.', '-' and '_', \
             and perhaps :port behind it";
        let host = match self.next() {
            Some(Lexeme { token: Token::Address(host) | Token::Word(host), .. })
                if host.len() <= MAX_NAME =>
            {
                host
            }
            Some(Lexeme { token: Token::Bracketed(host), .. })
                if host.parse::<std::net::Ipv6Addr>().is_ok() =>
            {
                host
            }
            other => return Err(self.unexpected(other, expected)),
        };
        let port = match self.peek() {
            Some(Lexeme { token: Token::Port(port), .. }) => {
                self.next();
                port
            }
            _ => 0,
        };
        let port = if port == 0 { DEFAULT_PORT } else { port };
        let weight = self.weight();
        memory.add(Server::Tcp { host: host.to_owned(), port, weight });
        Ok(())
    }

    /// The weight, if there is one: 0 is taken for 1.
    fn weight(&mut self) -> u32 {
        match self.peek() {
            Some(Lexeme { token: Token::Weight(weight), .. }) => {
                self.next();
                weight.max(1)
            }
            _ => 1,
        }
    }

    fn namespace(&mut self, memory: &mut Memory, syntax: &str) -> Result<(), ConfigError> {
        let namespace = self.string(syntax)?;
        if memory.config.namespace.is_some() {
            return Err(self.wrong("a second --NAMESPACE", "one"));
        }
        // libmemcached lets anything pass behind --BINARY-PROTOCOL; keys in memcached's text have no spaces.
        let fits = namespace.bytes().all(|octet| octet.is_ascii_graphic());
        if !fits || namespace.is_empty() || namespace.len() > MAX_NAMESPACE {
            return Err(self.wrong(
                &format!("a namespace of {} octets", namespace.len()),
                "1 to 127 ASCII characters without spaces or control characters",
            ));
        }
        memory.config.namespace = Some(namespace.to_owned());
        Ok(())
    }

    fn hash(&mut self) -> Result<KeyHash, ConfigError> {
        match self.next() {
            Some(Lexeme { token: Token::Hash(HashName::Built(hash)), .. }) => Ok(hash),
            other => Err(self.unexpected(other, &format!("one of {}", options::hash_names()))),
        }
    }

    /// A word or something quoted.
    fn string(&mut self, expected: &str) -> Result<&'t str, ConfigError> {
        match self.next() {
            Some(Lexeme { token: Token::Word(text) | Token::Quoted(text), .. }) if !text.contains('\0') => {
                Ok(text)
            }
            other => Err(self.unexpected(other, expected)),
        }
    }

    fn name(&mut self, expected: &str) -> Result<String, ConfigError> {
        match self.string(expected)? {
            name if !name.is_empty() && name.len() <= MAX_NAME => Ok(name.to_owned()),
            name => Err(self.wrong(&format!("a name of {} octets", name.len()), "1 to 1024 octets")),
        }
    }

    /// The error for a token that does not belong where it stands.
    fn unexpected(&self, found: Option<Lexeme<'t>>, expected: &str) -> ConfigError {
        let wrong = match found {
            None => "its end".to_owned(),
            Some(Lexeme { token: Token::Hash(HashName::Hsieh), .. }) => {
                "libmemcached is built without HSIEH".to_owned()
            }
            Some(Lexeme { start, end, .. }) => {
                let found = self.text.get(start..end).unwrap_or_default();
                format!("'{}' at octet {start}", shown(found))
            }
        };
        self.wrong(&wrong, expected)
    }

    fn wrong(&self, wrong: &str, expected: &str) -> ConfigError {
        self.at().wrong(wrong, expected)
    }

    /// The statement that is being read.
    fn at(&self) -> At {
        At {
            option: shown(option_at(self.text, self.statement).trim_end_matches(['\r', '\n'])),
            place: Place {
                file: self.file.map(|(file, line)| Box::new((file.to_owned(), line))),
                octet: self.statement,
            },
        }
    }
}

/// A ring gets its hash when it is made.
fn distribution(name: DistributionName) -> Distribution {
    match name {
        DistributionName::Consistent => Distribution::Consistent(Ring::Even(KeyHash::OneAtATime)),
        DistributionName::Modula => Distribution::Modula,
        DistributionName::Random => Distribution::Random,
    }
}
