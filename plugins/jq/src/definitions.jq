# What of jq's library is written in jq. Each definition starts a line, and comes after those it uses;
# a program brings in only what it names, since parsing all of this would cost more than most programs.

# Outputs
def empty: {}[] as $none | .;
def error: error_empty as $none | .;
def error(message): (message | error_empty) as $none | .;
def select(f): if f then . else empty end;
def recurse(f): def all: ., (f | all); all;
def recurse: recurse(.[]?);
def recurse(f; condition): recurse(f | select(condition));
def repeat(f): def all: ., (f | all); all;
def while(condition; update): def all: if condition then ., (update | all) else empty end; all;
def until(condition; update): def last: if condition then . else update | last end; last;
def range($from; $to): range($from; $to; 1);
def range($to): range(0; $to; 1);
def isempty(f): first((f | false), true);
def any(f; condition): isempty(first(f | condition | select(.))) | not;
def all(f; condition): isempty(first(f | condition | select(. | not)));
def any(condition): any(.[]; condition);
def all(condition): all(.[]; condition);
def any: any(.[]; .);
def all: all(.[]; .);
def IN(f): any(. == f; .);
def IN(source; f): any(source == f; .);

# Kinds of values
def values: select(. != null);
def nulls: select(. == null);
def booleans: select(type == "boolean");
def numbers: select(type == "number");
def strings: select(type == "string");
def arrays: select(type == "array");
def objects: select(type == "object");
def iterables: select(type == "array" or type == "object");
def scalars: select(type != "array" and type != "object");
def tostring: "\(.)";
def toarray: if type == "array" then . else [.] end;
def abs: if type == "number" and . < 0 then -. else . end;

# Paths
def getpath($path): reduce $path[] as $step (.; .[$step]);
def setpath($path; $value): getpath($path) = $value;
def paths: path(..) | select(. != []);
def paths(f): path(.. | select(f)) | select(. != []);
def leaf_paths: paths(type != "array" and type != "object");
def del(f): delpaths([path(f)]);
def pick(f): . as $whole | reduce path(f) as $path ({}; . * (
    reduce ($path | reverse | .[]) as $step ($whole | getpath($path); {($step): .})
  ));

# Lists and objects
def map(f): [.[] | f];
def map_values(f): .[] |= f;
def walk(f): def all: if type == "object" or type == "array" then map_values(all) else . end | f; all;
def add(f): reduce f as $item (null; . + $item);
def add: add(.[]);
def first: .[0];
def last: .[-1];
def nth($index): .[$index];
def nth($index; f): first(skip($index; f));
def in($of): . as $key | $of | has($key);
def inside($of): . as $part | $of | contains($part);
def index($part): indices($part) | .[0];
def rindex($part): indices($part) | .[-1];
def join($between): reduce .[] as $item (null; (if . == null then "" else . + $between end) + ($item | if . == null then "" else tostring end)) // "";
def keys: keys_unsorted | sort;
def to_entries: [key_values[] as [$key, $value] | {$key, $value}];
def from_entries: reduce .[] as $entry ({}; . + {
    ($entry | [.key, .k, .name, .Name, .Key, .K | select(. != null)][0] | if type == "string" then . else tojson end):
    ($entry | if has("value") then .value elif has("v") then .v else .Value end)
  });
def with_entries(f): to_entries | map(f) | from_entries;
def flatten($depth): [.[] | if type == "array" and $depth > 0 then flatten($depth - 1)[] else . end];
def flatten: flatten(1000000000);
def min_by(f): reduce min_by_or_empty(f) as $item (null; $item);
def max_by(f): reduce max_by_or_empty(f) as $item (null; $item);
def min: min_by(.);
def max: max_by(.);
def unique_by(f): [group_by(f)[] | .[0]];
def unique: unique_by(.);
def INDEX(source; f): reduce source as $row ({}; .[$row | f | tostring] = $row);
def INDEX(f): INDEX(.[]; f);
def transpose: [range([.[] | length] | max // 0) as $index | [.[][$index]]];
def combinations: if length == 0 then [] else .[0][] as $item | .[1:] | [$item] + combinations end;

# Texts
def trimstr($end): ltrimstr($end) | rtrimstr($end);
def split($between): . / $between;
def test($expression; $flags): _matches($expression; $flags) != [];
def test($expression): test($expression; "");
def match($expression; $flags): _matches($expression; $flags)[];
def match($expression): match($expression; "");
def _captured: reduce (.captures[] | select(.name != null)) as $group ({}; . + {($group.name): $group.string});
def capture($expression; $flags): _matches($expression; $flags)[] | _captured;
def capture($expression): capture($expression; "");
def scan($expression; $flags): _matches($expression; $flags + "g")[] | if .captures == [] then .string else [.captures[].string] end;
def scan($expression): scan($expression; "");
def split($expression; $flags): _pieces($expression; $flags + "g");
def splits($expression; $flags): _pieces($expression; $flags + "g")[];
def splits($expression): splits($expression; "");
def sub($expression; text; $flags): reduce _parts($expression; $flags)[] as $part (""; . + ($part | if type == "object" then _captured | text else . end));
def sub($expression; text): sub($expression; text; "");
def gsub($expression; text; $flags): sub($expression; text; $flags + "g");
def gsub($expression; text): sub($expression; text; "g");

# Times
def todate: todateiso8601;
def fromdate: fromdateiso8601;

# Formats
def @text: "\(.)";
def @json: tojson;
def @html: "\(.)" | escape_html;
def @uri: "\(.)" | encode_uri;
def @urid: "\(.)" | decode_uri;
def @base64: "\(.)" | encode_base64;
def @base64d: "\(.)" | decode_base64;
def @sh: [if type == "array" then .[] else . end | if type == "string" then "'\(escape_sh)'" else "\(.)" end] | join(" ");
def @csv: [.[] | if type == "string" then "\"" + gsub("\""; "\"\"") + "\"" elif . == null then "" else "\(.)" end] | join(",");
def @tsv: [.[] | if . == null then "" else "\(.)" | gsub("\\\\"; "\\\\") | gsub("\t"; "\\t") | gsub("\n"; "\\n") | gsub("\r"; "\\r") end] | join("\t");
