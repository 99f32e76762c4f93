//! Who has a TCP port: a help for the message when it is taken.

use std::fs;

/// A socket that listens, by inode, for `port` in the text of /proc/net/tcp or tcp6.
fn listening_inode(table: &str, port: u16) -> Option<u64> {
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let local = fields.get(1)?.rsplit_once(':')?.1;
        let listens = fields.get(3) == Some(&"0A") && u16::from_str_radix(local, 16) == Ok(port);
        listens.then(|| fields.get(9)?.parse().ok()).flatten()
    })
}

/// "process mosquitto (pid 812)", or "another process" where that cannot be seen.
pub(super) fn describe(port: u16) -> String {
    let unknown = || "another process".to_owned();
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"];
    let inode = tables.iter().find_map(|path| listening_inode(&fs::read_to_string(path).ok()?, port));
    let (Some(inode), Ok(processes)) = (inode, fs::read_dir("/proc")) else { return unknown() };
    let wanted = format!("socket:[{inode}]");
    // Only the numbers: /proc/self is another name of this process.
    let numbered = |name: &std::ffi::OsStr| name.as_encoded_bytes().iter().all(u8::is_ascii_digit);
    for process in processes.flatten().filter(|process| numbered(&process.file_name())) {
        let Ok(files) = fs::read_dir(process.path().join("fd")) else { continue };
        if files.flatten().any(|file| fs::read_link(file.path()).is_ok_and(|link| link.as_os_str() == wanted.as_str()))
        {
            let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return format!("process {} (pid {})", name.trim(), process.file_name().to_string_lossy());
        }
    }
    unknown()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_of_a_port_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let found = describe(listener.local_addr().unwrap().port());
        assert!(found.contains(&format!("pid {}", std::process::id())), "{found}");
        assert_eq!(listening_inode("header\n 0: 0100007F:075B 0:0 01 0:0 0:0 0 0 0 42\n", 1883), None);
    }
}
