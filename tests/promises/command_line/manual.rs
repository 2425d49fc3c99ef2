//! Shells and `man` know every command.

use crate::support::program::branchline;

#[tokio::test]
async fn completions_and_man_pages_know_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let ended = branchline(&["completions", shell], "").await;
        assert_eq!(ended.code, 0, "{ended:?}");
        for command in ["serve", "send"] {
            assert!(ended.stdout.contains(command), "{shell} does not know {command}");
        }
    }
    let ended = branchline(&["man"], "").await;
    assert!(ended.stdout.contains(".SH SUBCOMMANDS") && ended.stdout.contains("send"), "{ended:?}");
    let folder = tempfile::tempdir().unwrap();
    let within = folder.path().join("man1");
    let ended = branchline(&["man", "--within", within.to_str().unwrap()], "").await;
    assert_eq!(ended.code, 0, "{ended:?}");
    let page = std::fs::read_to_string(within.join("branchline-send.1")).unwrap();
    assert!(page.contains("concurrency"), "{page}");
}
