/* Shared libraries of programs; see closure.h. System V ABI, "Program Loading and Dynamic Linking";
 * ld.so(8) for where libraries are looked for. */
#include "test/closure.h"

#include "base/error.h"

#include <elf.h>
#include <glob.h>
#include <string.h>

enum { DEPTH_MAX = 8 }; /* of ld.so.conf's includes, and of scripts that run scripts */

/* --- folders --------------------------------------------------------------------------------- */

static void read_conf(struct closure *closure, const char *path, unsigned depth)
{
    g_autofree char *text = NULL;
    if (depth == DEPTH_MAX || !g_file_get_contents(path, &text, NULL, NULL))
        return;
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    for (char **line = lines; *line; line++) {
        *strchrnul(*line, '#') = '\0';
        const char *word = g_strstrip(*line);
        if (g_str_has_prefix(word, "include ")) {
            g_autofree char *base = g_path_get_dirname(path);
            const char *pattern = word + strlen("include ");
            g_autofree char *whole =
                *pattern == '/' ? g_strdup(pattern) : g_build_filename(base, pattern, NULL);
            glob_t found;
            if (glob(whole, 0, NULL, &found) == 0)
                for (size_t i = 0; i < found.gl_pathc; i++)
                    read_conf(closure, found.gl_pathv[i], depth + 1);
            globfree(&found);
        } else if (*word == '/') {
            g_ptr_array_add(closure->folders, g_strdup(word));
        }
    }
}

void closure_start(struct closure *closure, const char *const *folders)
{
    static const char *const usual[] = { "/lib/x86_64-linux-gnu",
                                         "/usr/lib/x86_64-linux-gnu",
                                         "/lib64",
                                         "/usr/lib64",
                                         "/lib",
                                         "/usr/lib",
                                         "/lib/i386-linux-gnu",
                                         NULL };
    closure->files = g_ptr_array_new_with_free_func(g_free);
    closure->folders = g_ptr_array_new_with_free_func(g_free);
    if (!folders)
        read_conf(closure, "/etc/ld.so.conf", 0);
    for (const char *const *folder = folders ? folders : usual; *folder; folder++)
        g_ptr_array_add(closure->folders, g_strdup(*folder));
}

void closure_finish(struct closure *closure)
{
    g_ptr_array_unref(closure->files);
    g_ptr_array_unref(closure->folders);
}

/* --- ELF ------------------------------------------------------------------------------------- */

/* What of a file there is to know. Both classes are brought to the wide one. */
struct program {
    const char *path, *bytes;
    size_t size;
    bool wide;
    Elf64_Phdr headers[64];
    unsigned count;
};

/* A piece of the file; NULL when it is not all in there. */
static const void *piece(const struct program *p, uint64_t at, uint64_t size)
{
    return at <= p->size && size <= p->size - at ? p->bytes + at : NULL;
}

/* A string of the file; NULL when it has no end. */
static const char *string_at(const struct program *p, uint64_t at)
{
    return at < p->size && memchr(p->bytes + at, 0, p->size - at) ? p->bytes + at : NULL;
}

static bool take_header(struct program *p, uint64_t at)
{
    Elf64_Phdr *h = &p->headers[p->count];
    const void *found = piece(p, at, p->wide ? sizeof(Elf64_Phdr) : sizeof(Elf32_Phdr));
    Elf32_Phdr narrow;
    if (!found)
        return false;
    if (p->wide) {
        memcpy(h, found, sizeof *h);
    } else {
        memcpy(&narrow, found, sizeof narrow);
        *h = (Elf64_Phdr){ .p_type = narrow.p_type,
                           .p_offset = narrow.p_offset,
                           .p_vaddr = narrow.p_vaddr,
                           .p_filesz = narrow.p_filesz };
    }
    p->count++;
    return true;
}

/* Is it a program or a library for a PC? */
static bool take_headers(struct program *p)
{
    const unsigned char *ident = piece(p, 0, sizeof(Elf32_Ehdr));
    Elf64_Ehdr head;
    Elf32_Ehdr narrow;
    if (!ident || memcmp(ident, ELFMAG, SELFMAG) || ident[EI_DATA] != ELFDATA2LSB)
        return false;
    p->wide = ident[EI_CLASS] == ELFCLASS64;
    if (p->wide) {
        const void *found = piece(p, 0, sizeof head);
        if (!found)
            return false;
        memcpy(&head, found, sizeof head);
    } else {
        memcpy(&narrow, ident, sizeof narrow);
        head.e_machine = narrow.e_machine;
        head.e_phoff = narrow.e_phoff;
        head.e_phnum = narrow.e_phnum;
        head.e_phentsize = narrow.e_phentsize;
    }
    if (head.e_machine != (p->wide ? EM_X86_64 : EM_386))
        return false;
    for (unsigned i = 0; i < MIN(head.e_phnum, G_N_ELEMENTS(p->headers)); i++)
        if (!take_header(p, head.e_phoff + (uint64_t)i * head.e_phentsize))
            return false;
    return true;
}

/* Where in the file an address of the program is; its size when it is nowhere. */
static uint64_t offset_of(const struct program *p, uint64_t address)
{
    for (unsigned i = 0; i < p->count; i++) {
        const Elf64_Phdr *h = &p->headers[i];
        if (h->p_type == PT_LOAD && address >= h->p_vaddr && address - h->p_vaddr < h->p_filesz)
            return h->p_offset + (address - h->p_vaddr);
    }
    return p->size;
}

static const Elf64_Phdr *header_of(const struct program *p, uint32_t type)
{
    for (unsigned i = 0; i < p->count; i++)
        if (p->headers[i].p_type == type)
            return &p->headers[i];
    return NULL;
}

/* The n-th entry of the dynamic section; DT_NULL at its end. */
static Elf64_Dyn dynamic(const struct program *p, const Elf64_Phdr *section, uint64_t n)
{
    Elf64_Dyn entry = { .d_tag = DT_NULL };
    Elf32_Dyn narrow;
    uint64_t size = p->wide ? sizeof entry : sizeof narrow;
    const void *found =
        n < section->p_filesz / size ? piece(p, section->p_offset + n * size, size) : NULL;
    if (found && p->wide) {
        memcpy(&entry, found, sizeof entry);
    } else if (found) {
        memcpy(&narrow, found, sizeof narrow);
        entry.d_tag = narrow.d_tag;
        entry.d_un.d_val = narrow.d_un.d_val;
    }
    return entry;
}

/* --- the closure ----------------------------------------------------------------------------- */

static bool add(struct closure *closure, const char *path, unsigned depth, GError **error);

static bool same_kind(const char *path, bool wide)
{
    g_autoptr(GMappedFile) file = g_mapped_file_new(path, false, NULL);
    const char *bytes = file ? g_mapped_file_get_contents(file) : NULL;
    return bytes && g_mapped_file_get_length(file) > EI_CLASS && !memcmp(bytes, ELFMAG, SELFMAG) &&
           bytes[EI_CLASS] == (wide ? ELFCLASS64 : ELFCLASS32);
}

/* A library in one of those folders, as the guest shall have it; NULL when it is in none. */
static char *library_in(const struct program *p, char *const *folders, guint count,
                        const char *name)
{
    g_autofree char *origin = g_path_get_dirname(p->path);
    for (guint i = 0; i < count; i++) {
        g_autoptr(GString) folder = g_string_new(folders[i]);
        g_string_replace(folder, "${ORIGIN}", origin, 0);
        g_string_replace(folder, "$ORIGIN", origin, 0);
        g_autofree char *path = g_build_filename(folder->str, name, NULL);
        if (*path == '/' && same_kind(path, p->wide))
            return g_canonicalize_filename(path, NULL);
    }
    return NULL;
}

static bool add_library(struct closure *closure, const struct program *p, const char *name,
                        const char *own, GError **error)
{
    g_auto(GStrv) own_folders = g_strsplit(own ? own : "", ":", -1);
    g_autofree char *path = strchr(name, '/') ? g_strdup(name) : NULL;
    if (!path)
        path = library_in(p, own_folders, g_strv_length(own_folders), name);
    if (!path)
        path = library_in(p, (char **)closure->folders->pdata, closure->folders->len, name);
    if (!path)
        return hv_fail(error, HV_FAILED,
                       "%s needs the library %s, which this host has in no folder of ld.so.conf: "
                       "install it, link statically, or give the guest's root with --root",
                       p->path, name);
    return add(closure, path, 0, error);
}

static bool add_needed(struct closure *closure, const struct program *p, GError **error)
{
    const Elf64_Phdr *section = header_of(p, PT_DYNAMIC), *loader = header_of(p, PT_INTERP);
    uint64_t strings = p->size;
    const char *own = NULL, *interpreter = loader ? string_at(p, loader->p_offset) : NULL;
    Elf64_Dyn entry;
    if (interpreter && *interpreter == '/' && !add(closure, interpreter, 0, error))
        return false;
    for (uint64_t i = 0; section && (entry = dynamic(p, section, i)).d_tag != DT_NULL; i++)
        if (entry.d_tag == DT_STRTAB)
            strings = offset_of(p, entry.d_un.d_ptr);
    for (uint64_t i = 0; section && (entry = dynamic(p, section, i)).d_tag != DT_NULL; i++)
        if (entry.d_tag == DT_RUNPATH || (entry.d_tag == DT_RPATH && !own))
            own = string_at(p, strings + entry.d_un.d_val);
    for (uint64_t i = 0; section && (entry = dynamic(p, section, i)).d_tag != DT_NULL; i++) {
        const char *name =
            entry.d_tag == DT_NEEDED ? string_at(p, strings + entry.d_un.d_val) : NULL;
        if (name && *name && !add_library(closure, p, name, own, error))
            return false;
    }
    return true;
}

/* "#! PROGRAM [ARGUMENT]"; behind env, the program is its argument. */
static bool add_script(struct closure *closure, const struct program *p, unsigned depth,
                       GError **error)
{
    g_autofree char *line = g_strndup(p->bytes + 2, MIN(p->size - 2, 255));
    *strchrnul(line, '\n') = '\0';
    g_auto(GStrv) words = g_strsplit_set(g_strstrip(line), " \t", 2);
    g_autofree char *base = words[0] ? g_path_get_basename(words[0]) : NULL;
    g_autofree char *found =
        !g_strcmp0(base, "env") && words[1] ? g_find_program_in_path(g_strstrip(words[1])) : NULL;
    return (!words[0] || *words[0] != '/' || add(closure, words[0], depth + 1, error)) &&
           (!found || add(closure, found, depth + 1, error));
}

static bool add(struct closure *closure, const char *path, unsigned depth, GError **error)
{
    for (guint i = 0; i < closure->files->len; i++)
        if (!strcmp(g_ptr_array_index(closure->files, i), path))
            return true;
    g_autoptr(GError) why = NULL;
    g_autoptr(GMappedFile) file = g_mapped_file_new(path, false, &why);
    if (!file)
        return hv_fail(error, HV_FAILED, "%s", why->message);
    g_ptr_array_add(closure->files, g_strdup(path));
    g_autofree struct program *p = g_new0(struct program, 1);
    p->path = path;
    p->bytes = g_mapped_file_get_contents(file);
    p->size = g_mapped_file_get_length(file);
    if (p->size > 2 && depth < DEPTH_MAX && !memcmp(p->bytes, "#!", 2))
        return add_script(closure, p, depth, error);
    return !take_headers(p) || add_needed(closure, p, error);
}

bool closure_add(struct closure *closure, const char *path, GError **error)
{
    return add(closure, path, 0, error);
}
