/* Raw images and block devices as disks. */
#pragma once
#include "block/disk.h"

#include <sys/types.h>

/* A disk over an open file descriptor of a regular file or a block device, which it owns from then
 * on (on failure it stays the caller's). A file whose size is no multiple of 512 is shown rounded
 * up: what lies behind its end reads as zeros, and a write to its last sector completes the file to
 * a whole sector. Never reads or writes past that size, whatever happens to the file. */
struct disk *raw_open(int fd, const char *name, bool readonly, GError **error);

/* The system calls it makes, so that tests can make them fail. */
struct raw_io {
    ssize_t (*readv)(int fd, const struct iovec *iov, int count, off_t offset);
    ssize_t (*writev)(int fd, const struct iovec *iov, int count, off_t offset);
    int (*sync)(int fd);
    int (*allocate)(int fd, int mode, off_t offset, off_t length); /* fallocate */
    int (*truncate)(int fd, off_t size);
    /* NULL, or what to believe io_uring's answer to be, with the owner's lock held. */
    int (*result)(struct disk_request *request, int result);
};
/* Before the first request. */
void raw_set_io(struct disk *disk, const struct raw_io *io);
/* As where io_uring is forbidden. Before the first request. */
void raw_use_threads(struct disk *disk);

/* The file as the container of an image format: for who has opened `raw` to lay a disk over it. On
 * a thread that may wait; any range; 0 or a positive errno. What lies behind the end of the file
 * reads as zeros, and writing there makes it longer. raw_sync fails for good once it has failed, as
 * flushes do. raw_punch is a hint. A disk of another kind (block/remote.h) will do for a format
 * that is only read. */
int raw_move(struct disk *raw, bool write, const struct iovec *iov, unsigned count, uint64_t at);
int raw_read(struct disk *raw, void *to, size_t length, uint64_t at);
int raw_write(struct disk *raw, const void *from, size_t length, uint64_t at);
int raw_sync(struct disk *raw);
int raw_punch(struct disk *raw, uint64_t at, uint64_t length);
int raw_zero(struct disk *raw, uint64_t at, uint64_t length);
int raw_truncate(struct disk *raw, uint64_t size);
/* For a disk that is raw.c's itself: the file, and what the disk shows. */
int raw_resize(struct disk *raw, uint64_t size);
int raw_length(struct disk *raw, uint64_t *length); /* bytes, now */

/* Transfers all of iov, with short transfers and EINTR seen to; what lies behind the end of the
 * file reads as zeros. 0 or a positive errno. */
int raw_transfer(const struct raw_io *io, int fd, bool write, const struct iovec *iov,
                 unsigned count, uint64_t offset);
extern const struct raw_io raw_system_io;
