#!/usr/bin/env bash
# Where the programs and modules in FOLDERs look for libraries: an empty or relative entry of a run path means the current folder, from which a stranger's library would be loaded.
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
