//! `tar`, as much of it as `kubectl cp` uses: `tar cf - PATH...` and `tar xmf - -C FOLDER`, also with files' names.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Component, Path, PathBuf},
};

use tar::{Archive, Builder, EntryType, Header};

use crate::Outcome;

/// What `tar` is asked to do.
#[derive(Default)]
struct Wanted {
    creates: bool,
    extracts: bool,
    lists: bool,
    file: Option<String>,
    folder: PathBuf,
    paths: Vec<String>,
}

pub(crate) fn tar(args: &[String]) -> Outcome {
    let wanted = parse(args)?;
    let done = if wanted.creates {
        create(&wanted)
    } else if wanted.extracts || wanted.lists {
        read(&wanted)
    } else {
        return Err("one of c, x and t must be given".into());
    };
    done.map_err(|error| error.to_string())?;
    Ok(0)
}

fn parse(args: &[String]) -> Result<Wanted, String> {
    let mut wanted = Wanted { folder: ".".into(), ..Wanted::default() };
    let mut args = args.iter().enumerate();
    while let Some((at, arg)) = args.next() {
        if arg.starts_with("--") {
            continue;
        }
        let letters = match arg.strip_prefix('-') {
            Some(letters) if !letters.is_empty() => letters,
            _ if at == 0 => arg,
            _ => {
                wanted.paths.push(arg.clone());
                continue;
            }
        };
        for letter in letters.chars() {
            let mut value = || args.next().map(|(_, value)| value.clone()).ok_or("an argument is missing");
            match letter {
                'c' => wanted.creates = true,
                'x' => wanted.extracts = true,
                't' => wanted.lists = true,
                'f' => wanted.file = Some(value()?).filter(|file| file != "-"),
                'C' => wanted.folder = value()?.into(),
                // Owners and permissions do not exist here, and times are the time of writing.
                'm' | 'p' | 'o' | 'v' => {}
                other => return Err(format!("unknown option {other:?}")),
            }
        }
    }
    Ok(wanted)
}

fn create(wanted: &Wanted) -> io::Result<()> {
    let out: Box<dyn Write> = match &wanted.file {
        Some(file) => Box::new(File::create(file)?),
        None => Box::new(io::stdout()),
    };
    let mut builder = Builder::new(out);
    for path in &wanted.paths {
        let name = path.trim_start_matches('/');
        add(&mut builder, &wanted.folder.join(path), Path::new(if name.is_empty() { "." } else { name }))?;
    }
    builder.into_inner()?.flush()
}

fn add(builder: &mut Builder<Box<dyn Write>>, path: &Path, name: &Path) -> io::Result<()> {
    let metadata = fs::symlink_metadata(path)?;
    let mut header = Header::new_gnu();
    header.set_mtime(metadata.modified().ok().and_then(seconds).unwrap_or(0));
    if metadata.is_dir() {
        header.set_entry_type(EntryType::Directory);
        header.set_mode(0o755);
        header.set_size(0);
        builder.append_data(&mut header, name, io::empty())?;
        for entry in fs::read_dir(path)? {
            let entry = entry?.file_name();
            add(builder, &path.join(&entry), &name.join(&entry))?;
        }
        return Ok(());
    }
    header.set_mode(0o644);
    if metadata.is_symlink() {
        header.set_entry_type(EntryType::Symlink);
        header.set_size(0);
        return builder.append_link(&mut header, name, fs::read_link(path)?);
    }
    header.set_size(metadata.len());
    builder.append_data(&mut header, name, File::open(path)?.take(metadata.len()))
}

fn seconds(time: std::time::SystemTime) -> Option<u64> {
    time.duration_since(std::time::UNIX_EPOCH).ok().map(|since| since.as_secs())
}

fn read(wanted: &Wanted) -> io::Result<()> {
    let input: Box<dyn Read> = match &wanted.file {
        Some(file) => Box::new(File::open(file)?),
        None => Box::new(io::stdin()),
    };
    for entry in Archive::new(input).entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        if wanted.lists {
            writeln!(io::stdout(), "{}", path.display())?;
            continue;
        }
        let Some(to) = within(&wanted.folder, &path) else {
            eprintln!("tar: {}: leads out of the folder, left out", path.display());
            continue;
        };
        match entry.header().entry_type() {
            EntryType::Directory => fs::create_dir_all(&to)?,
            EntryType::Regular | EntryType::Continuous => {
                if let Some(folder) = to.parent() {
                    fs::create_dir_all(folder)?;
                }
                io::copy(&mut entry, &mut File::create(&to)?)?;
            }
            other => eprintln!("tar: {}: {other:?} is left out", path.display()),
        }
    }
    Ok(())
}

/// Where an entry goes; nowhere when its name leads out of the folder.
fn within(folder: &Path, path: &Path) -> Option<PathBuf> {
    let mut to = folder.to_owned();
    for part in path.components() {
        match part {
            Component::Normal(part) => to.push(part),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    Some(to)
}
