#!/usr/bin/env bash
# Checks the run paths of the programs and modules in FOLDERs. An empty or relative entry means the
# current folder: a library put there by somebody else would be loaded.
#   tests/e2e/check_run_paths.sh FOLDER...
set -euo pipefail
count=0 bad=0
while IFS= read -r -d '' file; do
    dynamic=$(readelf -d "$file" 2>/dev/null) || continue
    count=$((count + 1))
    while IFS= read -r paths; do
        case ":$paths:" in
        *::* | *:[!/\$]*)
            echo "$file: run path [$paths] has an empty or relative entry"
            bad=$((bad + 1))
            ;;
        esac
    done < <(sed -nE 's/.*\((RPATH|RUNPATH)\).*\[(.*)\]$/\2/p' <<<"$dynamic")
done < <(find "$@" -maxdepth 1 -type f -print0)
echo "run paths: $bad problems in $count programs and modules"
((bad == 0 && count > 0))
