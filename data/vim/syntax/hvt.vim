" Scripts of hv test: see hv-test(5). tests/lint.sh holds the verbs against the table in the source.
if exists('b:current_syntax')
    finish
endif
setlocal commentstring=#\ %s expandtab shiftwidth=2

syntax match hvtVerb /\(^\s*\(\(on\s\+\S\+\|after\s\+\S\+\|soft\)\s\+\)*\)\@<=\(boot\|change\|click\|copy\|crash\|disk\|eject\|event\|from\|guest\|host\|include\|keep\|key\|limit\|log\|mark\|matrix\|move\|net\|not log\|not see\|off\|pause\|port\|power cut\|poweroff\|reboot\|repeat\|reset\|restore\|resume\|run\|screenshot\|scroll\|see\|see image\|set\|sha256\|skip unless\|step\|still\|test\|type\|vm\|watch\)\>/
syntax match hvtPrefix /^\s*\zs\(\(on\s\+\S\+\|after\s\+\S\+\|soft\)\s\+\)\+/
syntax match hvtNumber /\<\d\+\(ms\|s\|m\|h\|[KMGT]\|%\)\?\>/
syntax match hvtOperator /->/
syntax keyword hvtKeyword within bug screen serial prompt at left middle right double up down image similarity ignore to
syntax match hvtSecret /\<secret:\w\+/
syntax match hvtValue /\${[^}]*}/
syntax region hvtString start=/"/ skip=/\\./ end=/"/ oneline contains=hvtEscape,hvtValue
syntax match hvtEscape /\\\(x\x\x\|u\x\{4}\|.\)/ contained
syntax region hvtPattern start=+\(^\|\s\)\zs/+ skip=/\\./ end=+/i\?\ze\(\s\|$\)+ oneline contains=hvtValue
syntax match hvtShell /\(^\s*\(\(on\s\+\S\+\|after\s\+\S\+\|soft\)\s\+\)*\(guest\|host\)\s\+\)\@<=\S.*/ contains=hvtString,hvtValue
syntax match hvtComment /\(^\|\s\)\zs#.*/

highlight default link hvtComment Comment
highlight default link hvtEscape SpecialChar
highlight default link hvtKeyword Keyword
highlight default link hvtNumber Number
highlight default link hvtOperator Operator
highlight default link hvtPattern Constant
highlight default link hvtPrefix PreProc
highlight default link hvtSecret Special
highlight default link hvtShell PreProc
highlight default link hvtString String
highlight default link hvtValue Identifier
highlight default link hvtVerb Statement

let b:current_syntax = 'hvt'
