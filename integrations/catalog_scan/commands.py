"""Files that some program runs because of how they are called: of make, of a shell, of git, of an editor or desktop."""

from __future__ import annotations

import re

_MAKES = "it holds commands that make and its like run"
_SHELL = "a shell runs it when it starts"
_SERVICE = "git, or a service, runs the commands in it"
_DESKTOP = "a desktop or system runs the commands in it"
_CONTAINER = "it holds commands that a container runs"
_EDITOR = "an editor runs the commands in it"
# Names, in lower case, and endings of names.
_NAMES = {
    _MAKES: """makefile gnumakefile justfile taskfile.yml taskfile.yaml rakefile snakefile sconstruct sconscript
        cmakelists.txt meson.build build.ninja tox.ini jenkinsfile vagrantfile procfile wscript""",
    _SHELL: """.envrc .bashrc .bash_profile .bash_login .bash_logout .profile .zshrc .zprofile .zshenv .kshrc .cshrc
        .inputrc""",
    _SERVICE: """.pre-commit-config.yaml .pre-commit-hooks.yaml .gitlab-ci.yml .gitmodules .gitconfig .travis.yml
        lefthook.yml .lefthook.yml appveyor.yml azure-pipelines.yml cloudbuild.yaml""",
    _CONTAINER: "dockerfile containerfile docker-compose.yml docker-compose.yaml compose.yaml compose.yml",
}
_ENDINGS = {
    _MAKES: ".mk .mak .makefile .cmake",
    _CONTAINER: ".dockerfile",
    _DESKTOP: ".desktop .command .lnk .scf .inf .reg .hta .vbs .vbe .wsf .wsh .service .applescript",
    _EDITOR: ".code-workspace .sublime-project",
    "it runs where somebody calls it": """.ipy .sage .groovy .tcl .awk .fish .csh .ksh .psm1 .psd1 .cjs .ts .go
        .scpt""",
}
_PLACES = {
    _EDITOR: r"/\.vscode/(tasks|launch|settings)\.json$|/\.idea/|/\.(vim|nvim|exrc)",
    _SERVICE: r"/\.git/(hooks/|config$)|/\.github/(workflows|actions)/|/\.(husky|circleci)/|/\.devcontainer(/|\.json$)",
}


def run_by_name(name: str) -> str | None:
    """What runs a file of this name, because it is called so; None where nothing does."""
    lower = f"/{name.lower()}"
    base = lower.rpartition("/")[2]
    for what, names in _NAMES.items():
        if base in names.split():
            return what
    for what, endings in _ENDINGS.items():
        if lower.endswith(tuple(endings.split())):
            return what
    for what, place in _PLACES.items():
        if re.search(place, lower):
            return what
    return None
