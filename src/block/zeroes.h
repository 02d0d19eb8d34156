/* A disk that looks for zeros in what is written to another. */
#pragma once
#include <stdbool.h>

struct disk;

/* Writes of nothing but zeros, in whole blocks of 4 KiB, become zeros of the disk below, which take
 * no room where its format has a way to say so; `unmap`: and what they took is given back. It owns
 * the disk. */
struct disk *zeroes_open(struct disk *below, bool unmap);
/* The disk below has another size. With the owner's lock held. */
void zeroes_follow(struct disk *disk);
