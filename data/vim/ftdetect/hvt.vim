autocmd BufRead,BufNewFile *.hvt setfiletype hvt
