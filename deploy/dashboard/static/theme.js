// Before the first paint, so that nothing flashes: the theme chosen here before, else the system's.
{
  let chosen = null;
  try {
    chosen = localStorage.getItem("theme");
  } catch {
    chosen = null; // storage may be off; the system's theme is a good answer
  }
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const theme = () => (chosen === "dark" || chosen === "light" ? chosen : dark.matches ? "dark" : "light");
  document.documentElement.dataset.theme = theme();
  dark.addEventListener("change", () => {
    document.documentElement.dataset.theme = theme();
  });
  document.addEventListener("theme-chosen", (event) => {
    chosen = event.detail;
    document.documentElement.dataset.theme = theme();
    try {
      localStorage.setItem("theme", chosen);
    } catch {
      // the choice then lasts as long as the page
    }
  });
}
