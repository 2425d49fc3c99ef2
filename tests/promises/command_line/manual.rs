//! Shells and `man` know every command.

use crate::support::program::branchline;

/// The commands that `--help` lists.
async fn commands() -> Vec<String> {
    let ended = branchline(&["--help"], "").await;
    let listed = ended.stdout.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let commands: Vec<_> =
        listed.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect();
    assert!(commands.iter().any(|command| command == "dead-letters") && commands.len() > 12, "{commands:?}");
    commands.into_iter().filter(|command| command != "help").collect()
}

#[tokio::test]
async fn completions_and_man_pages_know_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let ended = branchline(&["completions", shell], "").await;
        assert_eq!(ended.code, 0, "{ended:?}");
        for command in commands().await {
            assert!(ended.stdout.contains(&command), "{shell} does not know {command}");
        }
    }
    let ended = branchline(&["man"], "").await;
    assert!(ended.stdout.contains(".SH SUBCOMMANDS"), "{ended:?}");
    for command in commands().await {
        let page = format!("branchline\\-{}(1)", command.replace('-', "\\-"));
        assert!(ended.stdout.contains(&page), "`{page}` is not in {}", ended.stdout);
    }
    let folder = tempfile::tempdir().unwrap();
    let within = folder.path().join("man1");
    let ended = branchline(&["man", "--within", within.to_str().unwrap()], "").await;
    assert_eq!(ended.code, 0, "{ended:?}");
    for command in commands().await {
        assert!(within.join(format!("branchline-{command}.1")).is_file(), "{command} has no page");
    }
    let page = std::fs::read_to_string(within.join("branchline-send.1")).unwrap();
    assert!(page.contains("concurrency"), "{page}");
}
