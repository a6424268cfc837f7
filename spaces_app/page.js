// Gradio leaves these pictures without a name; a screen reader needs one.
() => {
  const name = () => {
    document.querySelectorAll(".examples .gallery-item:not([aria-label])").forEach((button) => {
      const picture = button.querySelector("img");
      const file = decodeURIComponent(picture?.src ?? "").split("/").pop();
      const words = file.replace(/\.png$/, "").replaceAll("-", " ");
      if (!words) return;
      button.setAttribute("aria-label", `Example: ${words}`);
      picture.alt = words;
    });
    // The label of a comparison names what is left and right of its line.
    document.querySelectorAll(".comparison").forEach((block) => {
      const label = block.querySelector("[data-testid='block-label']")?.textContent ?? "";
      const names = label.split("|").map((part) => part.trim());
      block.querySelectorAll("img").forEach((picture, index) => {
        if (!picture.alt) picture.alt = names[index] ?? "";
      });
    });
  };
  new MutationObserver(name).observe(document.body, { childList: true, subtree: true });
  name();
}
