/* Guessing what a guest is; see guess.h. File systems are recognised by libblkid. */
#include "cli/guess.h"

#include "block/chain.h"
#include "block/disk.h"
#include "block/format.h"
#include "cli/remote.h"
#include "cli/url.h"

#include <blkid/blkid.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* An image as libblkid can look at it: the file, or, of another format than raw, a sparse file in
 * memory with the parts of the disk that matter. */
struct content {
    int fd;
    struct disk *disk; /* where these come from; NULL: nowhere */
};

enum {
    PART = 1 << 20 /* bytes at the beginning of a disk or partition in which systems are told */
};

static void fetch(const struct content *content, uint64_t offset)
{
    uint64_t size = content->disk ? content->disk->size : 0;
    if (offset >= size)
        return;
    uint64_t length = MIN(PART, size - offset);
    g_autofree uint8_t *data = g_malloc(length);
    if (!disk_read(content->disk, data, length, offset) &&
        pwrite(content->fd, data, length, (off_t)offset) < 0)
        return; /* it is a guess */
}

/* Of the systems on a disk: nothing known, one with virtio drivers, one without, and Windows, which
 * has none either. The last of these that is found counts. */
enum evidence { NOTHING, VIRTIO, OTHER, WINDOWS };

/* libblkid's names (blkid -k). */
static const char *const virtio_types[] = {
    "ext2",        "ext3", "ext4",     "btrfs",    "xfs",         "f2fs",
    "jfs",         "ufs",  "reiserfs", "bcachefs", "LVM2_member", "linux_raid_member",
    "crypto_LUKS", "swap", "erofs",    "squashfs", "zfs_member",  "nilfs2",
    NULL,
};
static const char *const other_types[] = { "hpfs", "apfs", "hfsplus", NULL };
static const char *const windows_types[] = { "ntfs", "BitLocker", NULL };

static enum evidence evidence_of(blkid_probe probe)
{
    const char *type = NULL;
    if (blkid_do_safeprobe(probe) != 0 || blkid_probe_lookup_value(probe, "TYPE", &type, NULL) != 0)
        return NOTHING;
    if (g_strv_contains(windows_types, type))
        return WINDOWS;
    if (g_strv_contains(other_types, type))
        return OTHER;
    return g_strv_contains(virtio_types, type) ? VIRTIO : NOTHING;
}

/* What is on a partition, or (0, 0) on the whole disk. */
static enum evidence probe_range(int fd, blkid_loff_t offset, blkid_loff_t size)
{
    blkid_probe probe = blkid_new_probe();
    enum evidence evidence = NOTHING;
    if (probe && blkid_probe_set_device(probe, fd, offset, size) == 0) {
        blkid_probe_enable_superblocks(probe, 1);
        blkid_probe_set_superblocks_flags(probe, BLKID_SUBLKS_TYPE);
        evidence = evidence_of(probe);
    }
    blkid_free_probe(probe);
    return evidence;
}

/* All partitions, or the whole disk where there are none. */
static enum evidence probe_disk(const struct content *content)
{
    int fd = content->fd;
    enum evidence evidence = NOTHING;
    blkid_probe probe = blkid_new_probe();
    blkid_partlist list = NULL;
    fetch(content, 0);
    if (probe && blkid_probe_set_device(probe, fd, 0, 0) == 0) {
        blkid_probe_enable_partitions(probe, 1);
        list = blkid_probe_get_partitions(probe);
    }
    int count = list ? blkid_partlist_numof_partitions(list) : 0;
    if (count <= 0)
        evidence = probe_range(fd, 0, 0);
    for (int i = 0; i < count && evidence != WINDOWS; i++) {
        blkid_partition part = blkid_partlist_get_partition(list, i);
        blkid_loff_t size = blkid_partition_get_size(part);
        if (blkid_partition_is_extended(part) || size <= 0)
            continue;
        blkid_loff_t start = blkid_partition_get_start(part) * SECTOR;
        fetch(content, (uint64_t)start);
        evidence = MAX(evidence, probe_range(fd, start, size * SECTOR));
    }
    blkid_free_probe(probe);
    return evidence;
}

/* What the boot loader of a CD says of itself. That of Windows' CDs has messages such as "CDBOOT:
 * Couldn't find BOOTMGR", while OpenBSD's is called CDBOOT, too. */
static const struct {
    const char *text;
    enum evidence evidence;
} loaders[] = {
    { "CDBOOT:", WINDOWS },         /* the first one that is there counts */
    { "ISOLINUX", VIRTIO },         /* Debian, Arch, Alpine ... */
    { "cdrom read fails", VIRTIO }, /* GRUB 2, whose name is compressed: Ubuntu, Fedora ... */
    { "GRUB", VIRTIO },             /* its first generation */
    { "BTX loader", VIRTIO },       /* FreeBSD */
    { "CDBOOT", VIRTIO },           /* OpenBSD */
    { "NetBSD", VIRTIO },
};

/* In the image that El Torito (section 2.0) starts. */
static enum evidence probe_cd(const struct content *content)
{
    int fd = content->fd;
    enum { BLOCK = 2048, BOOT_RECORD = 17, LOADER = 65536, CATALOG_AT = 0x47, ENTRY_AT = 0x28 };
    g_autofree uint8_t *data = g_malloc(LOADER);
    uint32_t at;
    fetch(content, 0);
    if (pread(fd, data, BLOCK, BOOT_RECORD * BLOCK) != BLOCK ||
        memcmp(data + 7, "EL TORITO SPECIFICATION", 23) != 0)
        return NOTHING;
    memcpy(&at, data + CATALOG_AT, sizeof at);
    if (pread(fd, data, BLOCK, (off_t)GUINT32_FROM_LE(at) * BLOCK) != BLOCK)
        return NOTHING;
    memcpy(&at, data + ENTRY_AT, sizeof at);
    fetch(content, (uint64_t)GUINT32_FROM_LE(at) * BLOCK);
    ssize_t length = pread(fd, data, LOADER, (off_t)GUINT32_FROM_LE(at) * BLOCK);
    for (size_t i = 0; length > 0 && i < G_N_ELEMENTS(loaders); i++)
        if (memmem(data, (size_t)length, loaders[i].text, strlen(loaders[i].text)))
            return loaders[i].evidence;
    return NOTHING;
}

/* False when it cannot be opened: whoever opens it in earnest says why. */
static bool open_content(struct content *content, const struct config *config,
                         const struct drive *drive)
{
    *content = (struct content){ .fd = -1 };
    const struct format *format = NULL;
    bool remote = url_is_disk(drive->file);
    if (!remote)
        content->fd = open(drive->file, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (content->fd >= 0)
        format = drive->format ? format_named(drive->format) : format_probe(content->fd);
    if (!remote && (!format || format == &raw_format))
        return content->fd >= 0;
    if (!remote)
        close(content->fd);
    const struct chain_rules rules = {
        .readonly = true,
        .format = format ? format->name : drive->format,
        .allowed = drive->backing,
        .trusted = config->trust_backing,
    };
    g_autoptr(image_chain) chain = remote_or_file(drive->file, &rules, NULL);
    content->disk = chain ? chain_disk(chain, NULL) : NULL;
    content->fd = content->disk ? memfd_create("hv-guess", MFD_CLOEXEC) : -1;
    if (content->fd >= 0 && ftruncate(content->fd, (off_t)content->disk->size) == 0)
        return true;
    disk_free(content->disk);
    if (content->fd >= 0)
        close(content->fd);
    return false;
}

static enum evidence probe_all(const struct config *config, const GPtrArray *drives,
                               enum evidence (*probe)(const struct content *content))
{
    enum evidence evidence = NOTHING;
    for (guint i = 0; i < drives->len; i++) {
        struct content content;
        if (!open_content(&content, config, g_ptr_array_index(drives, i)))
            continue;
        evidence = MAX(evidence, probe(&content));
        disk_free(content.disk);
        close(content.fd);
    }
    return evidence;
}

struct guess guess_guest(const struct config *config)
{
    if (config->kernel && !config->multiboot)
        return (struct guess){ .virtio = true };
    enum evidence evidence = probe_all(config, config->disks, probe_disk);
    if (evidence == NOTHING)
        evidence = probe_all(config, config->cdroms, probe_cd);
    return (struct guess){ .virtio = evidence == VIRTIO, .windows = evidence == WINDOWS };
}
