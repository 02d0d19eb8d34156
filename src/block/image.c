/* Locks and recognition of image files; see image.h. The content is hostile: fixed offsets are
 * compared, nothing in it is followed. */
#include "block/image.h"

#include "base/error.h"
#include "base/log.h"
#include "block/disk.h"
#include "block/floppy.h"
#include "block/format.h"
#include "block/raw.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

enum { HEAD = 1024, CD_DESCRIPTORS = 32768, CD_SECTOR = 2048, VHD_FOOTER = 512, SECTOR_SIZE = 512 };

#define AGAIN "it is damaged: get another copy"

/* Formats with a magic at a fixed place. The first that fits decides: a Linux kernel also has the
 * signature of a boot sector. */
static const struct magic {
    uint32_t offset;
    uint8_t length;
    const char *bytes;
    enum image_kind kind;
    const char *what, *advice;
} magics[] = {
    { 0, 2, "\x1f\x8b", IMAGE_FOREIGN, "compressed (gzip)", "unpack it: gunzip -k IN" },
    { 0, 6,
      "\xfd"
      "7zXZ\0",
      IMAGE_FOREIGN, "compressed (xz)", "unpack it: unxz -k IN" },
    { 0, 4, "PK\3\4", IMAGE_FOREIGN, "a zip archive", "unpack it: unzip IN" },
    { 0, 4, "\x28\xb5\x2f\xfd", IMAGE_FOREIGN, "compressed (zstd)", "unpack it: unzstd IN" },
    { 0, 3, "BZh", IMAGE_FOREIGN, "compressed (bzip2)", "unpack it: bunzip2 -k IN" },
    { 0, 6, "7z\xbc\xaf\x27\x1c", IMAGE_FOREIGN, "a 7-Zip archive", "unpack it: 7z x IN" },
    { 257, 5, "ustar", IMAGE_FOREIGN, "a tar archive", "unpack it: tar xf IN" },
    { 0x202, 4, "HdrS", IMAGE_KERNEL, "a Linux kernel", "start it: hv run --kernel IN" },
    { 0, 4,
      "\x7f"
      "ELF",
      IMAGE_KERNEL, "an ELF program", "start it: hv run --kernel IN" },
    { .bytes = NULL },
};

static bool has(const uint8_t *data, size_t size, size_t offset, const char *bytes, size_t length)
{
    return offset + length <= size && !memcmp(data + offset, bytes, length);
}

/* Reads what there is of a range; the rest of `to` is zero. */
static size_t read_at(int fd, void *to, size_t size, uint64_t offset)
{
    size_t done = 0;
    ssize_t n = 1;
    memset(to, 0, size);
    while (done < size && n) {
        n = pread(fd, (uint8_t *)to + done, size - done, (off_t)(offset + done));
        if (n < 0 && errno != EINTR)
            break;
        done += n > 0 ? (size_t)n : 0;
    }
    return done;
}

static void set(struct image_info *info, enum image_kind kind, const char *what, const char *advice)
{
    info->kind = kind;
    info->what = what;
    info->advice = advice;
}

static bool is_text(const uint8_t *data, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if (!g_ascii_isprint(data[i]) && !g_ascii_isspace(data[i]) && data[i] < 0x80)
            return false;
    return size > 0;
}

/* ECMA-119 8.1, ECMA-167 2/9.1: volume descriptors from sector 16; El Torito's is in sector 17. */
static bool probe_cd(int fd, struct image_info *info)
{
    uint8_t d[2 * CD_SECTOR];
    size_t n = read_at(fd, d, sizeof d, CD_DESCRIPTORS);
    if (!has(d, n, 1, "CD001", 5) && !has(d, n, 1, "BEA01", 5))
        return false;
    set(info, IMAGE_CD, "a CD or DVD image", NULL);
    info->bootable = has(d, n, CD_SECTOR + 1, "CD001\1EL TORITO SPECIFICATION", 29);
    return true;
}

static uint32_t get_le32(const uint8_t *at)
{
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

/* A master boot record, not a boot sector of a floppy, whose code may lie where the table would be:
 * four entries that make sense, one of them at least in use. */
static bool has_partitions(const uint8_t *head, uint64_t sectors)
{
    enum { TABLE = 446, ENTRY = 16, ENTRIES = 4, ACTIVE = 0x80, TYPE = 4, FIRST = 8, COUNT = 12 };
    unsigned used = 0;
    for (const uint8_t *e = head + TABLE; e < head + TABLE + ENTRIES * ENTRY; e += ENTRY) {
        uint64_t first = get_le32(e + FIRST), count = get_le32(e + COUNT);
        if (e[0] & ~ACTIVE || (e[TYPE] && (!first || !count || first + count > sectors)))
            return false;
        used += e[TYPE] != 0;
    }
    return used;
}

static bool probe_floppy(const uint8_t *head, bool signature, struct image_info *info)
{
    if (info->device || !floppy_format(info->size) ||
        (signature && has_partitions(head, info->size / SECTOR_SIZE)))
        return false;
    set(info, IMAGE_FLOPPY, "a floppy image", NULL);
    info->bootable = signature;
    return true;
}

static void probe_content(int fd, struct image_info *info)
{
    uint8_t head[HEAD], footer[VHD_FOOTER];
    size_t n = read_at(fd, head, sizeof head, 0);
    if (info->format != &raw_format) {
        set(info, IMAGE_DISK, info->format->what, NULL);
        info->bootable = true; /* for all that is known */
        return;
    }
    for (const struct magic *m = magics; m->bytes; m++)
        if (has(head, n, m->offset, m->bytes, m->length)) {
            set(info, m->kind, m->what, m->advice);
            return;
        }
    if (!info->device && info->size >= VHD_FOOTER &&
        read_at(fd, footer, sizeof footer, info->size - VHD_FOOTER) &&
        has(footer, sizeof footer, 0, "conectix", 8)) {
        set(info, IMAGE_FOREIGN, "a VHD disk image", AGAIN);
        return;
    }
    if (probe_cd(fd, info))
        return;
    bool gpt = has(head, n, 512, "EFI PART", 8), mbr = has(head, n, 510, "\x55\xaa", 2);
    if (!gpt && !is_text(head, n) && probe_floppy(head, mbr, info))
        return;
    if (gpt || mbr) {
        set(info, IMAGE_DISK, gpt ? "a disk with a GPT" : "a disk with a boot sector", NULL);
        info->bootable = true;
    } else if (is_text(head, n)) {
        set(info, IMAGE_OTHER, "a text file", "give a disk or CD image");
    } else if (info->size < SECTOR_SIZE) {
        set(info, IMAGE_OTHER, "too small for a disk (less than 512 bytes)",
            "give a disk or CD image");
    } else {
        set(info, IMAGE_BLANK, "a disk without a boot sector", NULL);
    }
}

bool image_probe(int fd, const char *path, struct image_info *info, GError **error)
{
    struct stat st;
    uint8_t byte;
    *info = (struct image_info){ .kind = IMAGE_OTHER, .format = &raw_format };
    if (fstat(fd, &st) < 0)
        return hv_fail(error, HV_FAILED, "%s: %s", path, g_strerror(errno));
    if (S_ISDIR(st.st_mode)) {
        set(info, IMAGE_OTHER, "a directory", "give a disk or CD image");
        return true;
    }
    info->device = S_ISBLK(st.st_mode);
    info->size = (uint64_t)st.st_size;
    if (!info->device && !S_ISREG(st.st_mode)) {
        set(info, IMAGE_OTHER, "neither a file nor a block device", "give a disk or CD image");
        return true;
    }
    if (info->device && ioctl(fd, BLKGETSIZE64, &info->size) < 0)
        return hv_fail(error, HV_FAILED, "%s: cannot get its size: %s", path, g_strerror(errno));
    if (!info->size) {
        set(info, IMAGE_OTHER, "empty", "make it as large as the disk shall be: truncate -s 8G IN");
        return true;
    }
    if (read_at(fd, &byte, 1, 0) != 1)
        return hv_fail(error, HV_FAILED, "%s: cannot be read: %s", path, g_strerror(errno));
    info->format = format_probe(fd); /* that it is raw must not be for want of an answer */
    if (!info->format)
        return hv_fail(error, HV_FAILED, "%s: cannot be read: %s", path, g_strerror(errno));
    probe_content(fd, info);
    return true;
}

bool image_usable(const struct image_info *info, const char *path, GError **error)
{
    if (!info->advice)
        return true;
    g_autofree char *quoted = g_shell_quote(path);
    const char *place = strstr(info->advice, "IN");
    if (!place)
        return hv_fail(error, HV_USAGE, "%s is %s, not a disk: %s", path, info->what, info->advice);
    return hv_fail(error, HV_USAGE, "%s is %s, not a raw disk: %.*s%s%s", path, info->what,
                   (int)(place - info->advice), info->advice, quoted, place + 2);
}

/* --- locks ----------------------------------------------------------------------------------- */

char *image_identity(int fd)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return NULL;
    return g_strdup_printf("%" G_GUINT64_FORMAT ":%" G_GUINT64_FORMAT, (uint64_t)st.st_dev,
                           (uint64_t)st.st_ino);
}

void image_write_list(int fd, struct disk *const disks[], unsigned count)
{
    g_autoptr(GString) text = g_string_new(NULL);
    for (unsigned i = 0; i < count; i++)
        if (disks[i] && disks[i]->identity)
            g_string_append_printf(text, "%s\n", disks[i]->identity);
    struct iovec iov = { text->str, text->len };
    if (fd < 0)
        return;
    int error = TEMP_FAILURE_RETRY(ftruncate(fd, 0)) < 0 ? errno : 0;
    if (!error)
        error = raw_transfer(&raw_system_io, fd, true, &iov, 1, 0);
    if (error)
        log_warn("images", "cannot be written: %s", g_strerror(error));
}

/* A machine holds a lock on its directory's file "lock" for as long as it lives: on the whole file.
 * Who removes a dead one locks its first byte meanwhile. */
bool machine_runs(const char *machines, const char *name)
{
    g_autofree char *path = g_build_filename(machines, name, "lock", NULL);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return false;
    struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
    bool held = fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK && lock.l_len == 0;
    close(fd);
    return held;
}

/* The name of the machine whose file "images" has the line; NULL when none has. */
static char *holder(const char *machines, const char *identity)
{
    g_autoptr(GDir) dir = machines && identity ? g_dir_open(machines, 0, NULL) : NULL;
    const char *name;
    while (dir && (name = g_dir_read_name(dir))) {
        g_autofree char *path = g_build_filename(machines, name, "images", NULL);
        g_autofree char *text = NULL;
        if (!g_file_get_contents(path, &text, NULL, NULL))
            continue;
        g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
        if (g_strv_contains((const char *const *)lines, identity) && machine_runs(machines, name))
            return g_strdup(name);
    }
    return NULL;
}

/* The locks of a machine that has just ended may stay a moment longer: the kernel takes its
 * io_uring, which has the file too, apart in the background. */
static bool take_lock(int fd, bool exclusive)
{
    enum { TRIES = 50, TRY_US = 10 * 1000 };
    struct flock lock = { .l_type = exclusive ? F_WRLCK : F_RDLCK, .l_whence = SEEK_SET };
    for (unsigned i = 0; i < TRIES; i++) {
        if (fcntl(fd, F_OFD_SETLK, &lock) == 0)
            return true;
        if (errno == EAGAIN || errno == EACCES)
            g_usleep(TRY_US);
        else if (errno != EINTR)
            return false;
    }
    errno = EAGAIN;
    return false;
}

bool image_lock(int fd, const char *path, bool exclusive, const char *machines, GError **error)
{
    if (take_lock(fd, exclusive))
        return true;
    if (errno != EAGAIN && errno != EACCES) {
        /* Some network file systems have no locks: better no protection than no machine. */
        if (errno != ENOLCK && errno != EOPNOTSUPP && errno != ENOSYS)
            return hv_fail(error, HV_FAILED, "%s: cannot be locked: %s", path, g_strerror(errno));
        log_warn(path, "its file system has no locks: take care that no other machine uses it");
        return true;
    }
    g_autofree char *identity = image_identity(fd);
    g_autofree char *name = holder(machines, identity);
    return hv_fail(error, HV_WRONG_STATE,
                   "%s is in use by %s%s: stop that one first, or work on a copy", path,
                   name ? "machine " : "another machine or program", name ? name : "");
}
