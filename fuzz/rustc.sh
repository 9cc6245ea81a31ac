#!/bin/sh
# rustc without instrumentation for the kernels of tensors and their runtimes: no input
# steers them, and as the rest they would take most of an hour to build.
case " $* " in
*" --crate-name burn_store "* | *" --crate-name burn_pack "*) ;;
*" --crate-name burn"* | *" --crate-name cubecl"* | *" --crate-name gemm"* | \
    *" --crate-name pulp"* | *" --crate-name macerator"* | *" --crate-name tokio"* | *" --crate-name ratatui"*)
    for argument; do
        shift
        case $argument in
        -Cpasses=sancov-module | -Cllvm-args=-sanitizer-coverage-* | -Ccodegen-units=1) ;;
        *) set -- "$@" "$argument" ;;
        esac
    done
    set -- "$@" -Cdebuginfo=0
    ;;
esac
exec "$@"
