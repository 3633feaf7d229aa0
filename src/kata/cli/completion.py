"""``kata completion``: the scripts by which bash and zsh ask ``kata __complete``.

The scripts hold no word of the grammar, so that they never have to be made anew.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kata.cli.parse import Options

_BASH = """\
# bash completion for kata, made by "kata completion bash"; to try it:
#   source <(kata completion bash)
# to keep it:
#   kata completion bash > /usr/share/bash-completion/completions/kata

_kata() {
    local cur=${COMP_WORDS[COMP_CWORD]} kind=words
    # bash makes words of their own of = and :, the candidates go on after them
    [[ $cur == [=:] ]] && cur=""
    COMPREPLY=()
    {
        read -r kind
        mapfile -t COMPREPLY
    } < <(kata __complete bash -- "$cur" "${COMP_LINE:0:COMP_POINT}" 2>/dev/null)
    case $kind in
        nospace) compopt -o nospace ;;
        files) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur") ;;
        directories) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -d -- "$cur") ;;
        commands) mapfile -t COMPREPLY < <(compgen -c -- "$cur") ;;
        variables) mapfile -t COMPREPLY < <(compgen -e -- "$cur") ;;
    esac
}

complete -F _kata kata
"""

_ZSH = """\
#compdef kata
# zsh completion for kata, made by "kata completion zsh"; to try it:
#   source <(kata completion zsh)
# to keep it:
#   kata completion zsh > /usr/local/share/zsh/site-functions/_kata

_kata() {
    local kind
    local -a lines
    lines=("${(@f)$(kata __complete zsh -- "${(@Q)words[2,CURRENT-1]}" "$PREFIX" 2>/dev/null)}")
    kind=${lines[1]:-words}
    shift lines
    [[ $PREFIX == -*=* && $kind != words && $kind != nospace ]] && compset -P '*='
    case $kind in
        words) _describe -V kata lines ;;
        nospace) _describe -V kata lines -S '' ;;
        files) _files ;;
        directories) _files -/ ;;
        commands) _command_names -e ;;
        variables) _parameters -g '*export*' ;;
    esac
}

if [[ $funcstack[1] == _kata ]]; then
    _kata "$@"
else
    compdef _kata kata
fi
"""

SCRIPTS = {"bash": _BASH, "zsh": _ZSH}


def run(options: Options) -> int:
    """Print the script for a shell."""
    print(SCRIPTS[options.shell], end="")
    return 0
